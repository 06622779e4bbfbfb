"""Addresses that the server must never fetch, one trick each. `NAMES` resolves the names without a network."""

NAMES = {
    "public.example": ["93.184.215.14"],
    "loopback.example": ["127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "private.example": ["10.0.0.7"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mixed.example": ["93.184.215.14", "192.168.0.1"],
    "mixed6.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::1"],
    "zone.example": ["fe80::1%eth0"],
    "localhost": ["127.0.0.1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "xn--lcalhost-54a.example": ["127.0.0.1"],
}

# {port} is the port of a listener on this machine that counts connections.
TRICKS = [
    # Plainly private, reserved or special IPv4
    "http://127.0.0.1:{port}/", "http://127.0.0.1/", "http://127.255.255.254/", "http://0.0.0.0/", "http://0.0.0.0:{port}/",
    "http://0.1.2.3/", "http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/",
    "http://100.64.0.1/", "http://100.127.255.254/", "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/",
    "http://192.0.0.192/", "http://192.0.2.1/", "http://198.18.0.1/", "http://198.51.100.1/", "http://203.0.113.1/",
    "http://192.88.99.1/", "http://224.0.0.1/", "http://239.255.255.250/", "http://240.0.0.1/", "http://255.255.255.255/",
    "https://127.0.0.1/",
    # IPv6, plain and with an IPv4 address inside
    "http://[::1]/", "http://[::1]:{port}/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[fe80::1]/",
    "http://[fe80::1%25lo]/", "http://[::1%25lo]/", "http://[::1%lo]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/",
    "http://[fec0::1]/", "http://[ff02::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/", "http://[100::1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]:{port}/", "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]/", "http://[::7f00:1]:{port}/", "http://[::ffff:0:127.0.0.1]/", "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:7f00:1::]/", "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://[5f00::1]/",
    "http://[::ffff:8.8.8.8]/",
    # Other ways to spell 127.0.0.1 and 169.254.169.254
    "http://2130706433/", "http://2130706433:{port}/", "http://017700000001/", "http://0x7f000001/", "http://0x7f.0.0.1/",
    "http://0177.0.0.1/", "http://127.1/", "http://127.0.1/", "http://127.1:{port}/", "http://0/", "http://0x7f.1/",
    "http://00000177.0.0.0x1/", "http://127.0.0.1./", "http://127.0.0.1.:{port}/", "http://2852039166/",
    "http://0xa9fea9fe/", "http://169.254.43518/", "http://425.510.425.510/", "http://127.000.000.001/",
    "http://0x7f.0x0.0x0.0x1:{port}/", "http://0x/", "http://1.2.3.4.5/",
    # Full-width and circled characters, ideographic dots, invisible characters
    "http://１２７.０.０.１/", "http://１２７.０.０.１:{port}/", "http://127。0。0。1/", "http://127．0．0．1/", "http://①②⑦.0.0.1/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "http://\u200b127.0.0.1/", "http://127.0\u00ad.0.1/", "http://loc\u00adalhost/",
    "http://[::ⅰ]/", "http://0ｘ7f.1/",
    # Escapes in the host
    "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/", "http://127.0.0.1%00.public.example/", "http://loc%61lhost/",
    "http://public.example%2f@127.0.0.1/", "http://127.0.0.1%23.public.example/",
    # Credentials, and parsers that disagree
    "http://user@public.example/", "http://user:pass@public.example/", "http://public.example@127.0.0.1:{port}/",
    "http://public.example:80@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@public.example/", "http:\\\\127.0.0.1\\",
    "http://public.example\\@127.0.0.1/", "http://@127.0.0.1:{port}/", "http://a@b@127.0.0.1/", "http://:@public.example/",
    "http://127.0.0.1:{port}#@public.example/", "http://127.0.0.1:{port}?@public.example/",
    # Blanks, tabs, line ends, null bytes, half characters
    " http://127.0.0.1/", "http://127.0.0.1\t/", "ht\ttp://127.0.0.1/", "http://127.0.0.1\r\nHost: public.example/",
    "http://public.example/\r\nX: y", "http://public.example/a b", "http://public.example\x00.evil/", "http://\ud800/",
    "http://public.example/\u00a0",
    # Schemes and forms that are not a page's address
    "file:///etc/passwd", "ftp://public.example/", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/",
    "data:text/html,x", "javascript:1", "ws://public.example/", "jar:http://public.example!/", "unix:///run/docker.sock", "ldap://127.0.0.1/",
    "//127.0.0.1/", "127.0.0.1", "localhost:{port}", "http:127.0.0.1", "http:/127.0.0.1/", "http:///127.0.0.1/", "http://", "",
    "http://?", "http://.", "http://..", "http://[", "http://[::1", "http://]", "http://[127.0.0.1]/", "http://[v1.x]/",
    # Ports
    "http://public.example:22/", "http://public.example:6379/", "http://public.example:{port}/", "http://public.example:0/",
    "http://public.example:65536/", "http://public.example:-80/", "http://public.example:8a/", "https://public.example:8443/",
    # Names
    "http://localhost/", "http://localhost:{port}/", "http://LOCALHOST/", "http://localhost./", "http://loopback.example/",
    "http://metadata.example/", "http://private.example/", "http://mapped.example/", "http://mixed.example/",
    "http://mixed6.example/", "http://zone.example/", "http://metadata.google.internal/", "http://127.0.0.1.nip.example/",
    "http://xn--lcalhost-54a.example/", "http://no-such-name.example/", "http://-public.example/", "http://public..example/",
    "http://" + "a" * 64 + ".example/", "http://" + "a." * 130 + "example/", "http://public.example/" + "a" * 3000,
]  # fmt: skip
