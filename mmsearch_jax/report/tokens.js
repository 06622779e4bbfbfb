// The tokens of an episode on demand, coloured by provenance or by log-prob.

const SOURCES = ["p", "s", "o"];
const SOURCE_NAMES = ["prompt", "sampled by the policy", "observation"];
const UNLIKELY = 4; // negative log-prob in nats at which the colour is full

/** Calls each(text, source, log-prob or null, is image) for every token; joins the bytes of one character. */
function eachToken(data, tokens, each) {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let run = 0, left = tokens.p.length ? tokens.p[0][1] : 0, sampled = 0;
  for (const place of tokens.t) {
    while (!left) left = tokens.p[++run][1];
    left -= 1;
    const source = tokens.p[run][0];
    const logprob = source === 1 ? tokens.l[sampled++] / 100 : null;
    if (place < 0) {
      each("[image: " + -place + " tokens]", source, null, true);
      continue;
    }
    const spelling = data.spellings[place];
    const bytes = typeof spelling === "string" ? encoder.encode(spelling) : new Uint8Array(spelling);
    each(decoder.decode(bytes, { stream: true }), source, logprob, false);
  }
}

function tokenPanel(data, tokens) {
  const bar = make("div", "tokenbar", null, "tokens:");
  const holder = make("div", "", null, bar);
  let shown = null, mode = "";
  const show = (wanted) => {
    if (shown) shown.remove();
    shown = null;
    mode = mode === wanted ? "" : wanted;
    if (!mode) return;
    const text = make("div", "tokens");
    eachToken(data, tokens, (part, source, logprob, image) => {
      const span = make("span", image ? "image" : mode === "source" ? SOURCES[source] : logprob === null ? "p" : "", part);
      span.title = SOURCE_NAMES[source] + (logprob === null ? "" : ", log-prob " + logprob.toFixed(2));
      if (mode === "logprob" && logprob !== null)
        span.style.backgroundColor = "rgba(194, 24, 91, " + (0.7 * Math.min(1, -logprob / UNLIKELY)).toFixed(2) + ")";
      text.append(span);
    });
    shown = make("div", "", null, make("div", "small", legend(mode)), text);
    holder.append(shown);
  };
  for (const [wanted, name] of [["source", "by origin"], ["logprob", "by log-prob"]]) {
    const button = make("button", "", name);
    button.type = "button";
    button.addEventListener("click", () => show(wanted));
    bar.append(button);
  }
  return holder;
}

function legend(mode) {
  if (mode === "source") return "grey: prompt; blue: sampled by the policy; orange: observation, inserted by the host";
  return "redder: lower log-prob of the sampled token (full colour at -" + UNLIKELY + " nats); hover to see the value";
}
