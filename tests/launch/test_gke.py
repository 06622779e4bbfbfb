"""GKE: manifests against Kubernetes' schemas and JobSet's fields, scripts against a `kubectl` that can fail (conftest.py)."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
TRAIN = ["grpo", "--workdir", "/mnt/it's here"]
RUN = ["--name", "run1", "--image", "reg/mm:1", "--bucket", "b1", "--topology", "v5p:2x2x4"]


def up(fake, *more, command=TRAIN, step="up", files=(), **environment):
    files = {"terminalState": "Completed\n", **dict(files)}
    return fake("gke.sh", step, *RUN, "--poll", "0", *more, "--", *command, files=files, **environment)


# The fields of JobSet v1alpha2 (charts/jobset/crds of kubernetes-sigs/jobset); job templates have Kubernetes' fields.
SPEC = {
    "successPolicy": {"operator", "targetReplicatedJobs"},
    "failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "replicatedJobs": None,
}
RULE = {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}


def check_jobset(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    assert set(spec) == set(SPEC)
    assert set(spec["successPolicy"]) <= SPEC["successPolicy"] and spec["successPolicy"]["operator"] == "All"
    assert set(spec["failurePolicy"]) <= SPEC["failurePolicy"]
    assert spec["failurePolicy"]["restartStrategy"] in ("Recreate", "BlockingRecreate")
    for rule in spec["failurePolicy"]["rules"]:
        assert {"name", "action"} <= set(rule) <= RULE
        assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    names = [job["name"] for job in spec["replicatedJobs"]]
    assert len(set(names)) == len(names) and set(spec["successPolicy"]["targetReplicatedJobs"]) <= set(names)
    for number, job in enumerate(spec["replicatedJobs"]):
        assert {"name", "replicas", "template"} <= set(job) <= {"name", "replicas", "template", "dependsOn"}
        # A job can depend only on jobs before it.
        for other in job.get("dependsOn", ()):
            assert other["name"] in names[:number] and other["status"] in ("Ready", "Complete")
        as_job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, **job["template"]}
        as_job["metadata"] = {"name": "j", **as_job["metadata"]}
        kubernetes_validate.validate(as_job, "1.33", strict=True)
    return {job["name"]: job for job in spec["replicatedJobs"]}


def trainer(jobs):
    pod = jobs["slice"]["template"]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def test_one_slice_is_a_job_with_a_pod_a_host(fake):
    done, calls, (jobset,) = up(fake)
    assert done.returncode == 0, done.stderr
    assert [call.split()[1] for call in calls[:2]] == ["apply", "get"] and "done" in done.stdout
    jobs = check_jobset(jobset)
    assert list(jobs) == ["slice"] and jobs["slice"]["replicas"] == 1
    spec = jobs["slice"]["template"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (4, 4, 0)
    pod, container = trainer(jobs)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x4",
    }
    assert container["args"] == [*TRAIN, "--distributed"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4} and "hostNetwork" not in pod
    assert "envFrom" not in container and "tolerations" not in pod


def test_what_a_restart_does_not_mend_ends_the_run_and_all_else_restarts_it(fake):
    _, _, (jobset,) = up(fake, "--restarts", "7")
    spec = check_jobset(jobset)["slice"]["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"], rule["onExitCodes"]["values"]) == ("FailJob", "In", [2])
    assert rule["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert policy["rules"] == [
        {"name": "userMustMend", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]


@pytest.mark.parametrize(
    ("topology", "replicas", "hosts", "accelerator"),
    [
        ("v5e:2x4:3", 3, 2, "tpu-v5-lite-podslice"),
        ("v6e:16x16:16", 16, 64, "tpu-v6e-slice"),
        ("7x:4x4x4:2", 2, 16, "tpu7x"),
    ],
)
def test_several_slices_are_replicas_on_the_hosts_network(fake, topology, replicas, hosts, accelerator):
    _, _, (jobset,) = up(fake, "--topology", topology, "--spot", "--queue", "tpus")
    jobs = check_jobset(jobset)
    pod, _ = trainer(jobs)
    assert (jobs["slice"]["replicas"], jobs["slice"]["template"]["spec"]["parallelism"]) == (replicas, hosts)
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == accelerator
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["hostNetwork"] is True and pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tpus"
    annotations = jobs["slice"]["template"]["metadata"]["annotations"]
    assert annotations == {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}


def test_the_search_server_beside_the_trainer_is_waited_for_and_its_address_given(fake):
    _, _, (jobset,) = up(fake, "--tools", "configs/tools/serper.py", "--tools-image", "reg/tools:1", "--secret", "keys")
    jobs = check_jobset(jobset)
    assert list(jobs) == ["tools", "slice"] and jobs["slice"]["dependsOn"] == [{"name": "tools", "status": "Ready"}]
    _, container = trainer(jobs)
    # JobSet names its pods' hosts <jobset>-<replicated job>-<job>-<pod>.<jobset>.
    assert container["args"][-1] == "--distributed" or container["args"][-1].startswith("--config.tools.url=")
    assert "--config.tools.url=http://run1-tools-0-0.run1:8765" in container["args"]
    server = jobs["tools"]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert server["args"] == ["--config", "configs/tools/serper.py"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # The run ends when the trainer ends; the server does not end by itself.
    assert jobset["spec"]["successPolicy"]["targetReplicatedJobs"] == ["slice"]
    assert server["envFrom"] == container["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_the_search_server_as_a_deployment_shares_its_cache_in_redis(fake):
    done, calls, objects = fake(
        "gke.sh",
        "tools",
        "--name",
        "search",
        "--image",
        "reg/tools:1",
        "--replicas",
        "5",
        "--secret",
        "keys",
        "--",
        "--config",
        "configs/tools/serper.py",
        "--config.cache.mode=record",
    )
    assert done.returncode == 0, done.stderr
    for each in objects:
        kubernetes_validate.validate(each, "1.33", strict=True)
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert {kind for kind, _ in by_kind} == {"Service", "StatefulSet", "Deployment", "PodDisruptionBudget"}
    deployment = by_kind["Deployment", "search"]["spec"]
    container = deployment["template"]["spec"]["containers"][0]
    assert deployment["replicas"] == 5
    assert container["args"][-1] == "--config.cache.redis_url_env=REDIS_URL"
    assert {"name": "REDIS_URL", "value": "redis://search-redis:6379/0"} in container["env"]
    assert by_kind["Service", "search"]["spec"]["selector"] == deployment["template"]["metadata"]["labels"]
    assert "volumes" not in deployment["template"]["spec"]
    assert "rollout status deployment/search" in calls[-1]


def test_a_file_is_filled_by_a_python_without_any_package():
    words = ["-S", str(LAUNCH / "fill.py"), "-", "--topology", "v5p:4x4x4:2"]
    done = subprocess.run(
        [sys.executable, *words], input="${XPK_TYPE} ${SLICES}\n", capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "v5p-4x4x4 2\n", done.stderr


def test_probes_ask_what_the_server_answers():
    from mmsearch_jax.core import search_api

    for file in ("gke_jobset.yaml", "gke_tools_server.yaml", "Dockerfile.tools"):
        text = (LAUNCH / file).read_text()
        assert search_api.ROUTE_HEALTH in text and search_api.ROUTE_READY in text, file


def test_keys_are_in_a_secret_object_and_in_no_argument(fake, tmp_path):
    secrets = tmp_path / "keys.env"
    secrets.write_text("JUDGE_API_KEY=sk-very-secret\n")
    done, calls, _ = fake("gke.sh", "secret", "--name", "keys", "--secrets", str(secrets))
    assert done.returncode == 0
    assert calls == [f"kubectl create secret generic keys --from-env-file {secrets} "]
    for file in ("gke_jobset.yaml", "gke_tools_server.yaml"):
        assert "KEY" not in (LAUNCH / file).read_text()


def test_a_run_that_was_pre_empted_is_followed_through_its_restarts(fake):
    done, _, _ = up(fake, files={"terminalState": "\n\n\nCompleted\n", "restarts": "0\n0\n1\n1\n"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run1 was stopped and restarts (restart 1 of 50)") == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"terminalState": "\n", "reason": "ImagePullBackOff\n"}, "the image cannot be pulled: is reg/mm:1 pushed"),
        ({"terminalState": "\n", "reason": "CreateContainerConfigError\n"}, "is the secret 'keys' in this namespace"),
        ({"terminalState": "Failed\n"}, "the run failed (see above); fix the error and start it again: it resumes"),
        ({"gone": ""}, "the JobSet run1 no longer exists"),
    ],
)
def test_what_does_not_mend_itself_ends_the_wait(fake, files, message):
    done, calls, _ = up(fake, "--secret", "keys", files=files)
    assert done.returncode == 2 and message in done.stderr
    # Nodes are billed as long as pods hold them.
    assert ("kubectl delete jobset run1 " in calls) == ("gone" not in files)
    if "Failed" in files.get("terminalState", ""):
        assert "the trainer's last words" in done.stderr and "jobset failed: run1-slice-0" in done.stderr


def test_a_failed_run_is_kept_if_asked_for(fake):
    done, calls, _ = up(fake, "--keep", files={"terminalState": "Failed\n"})
    assert done.returncode == 2 and "The JobSet is kept" in done.stderr
    assert not [call for call in calls if " delete " in call]


def test_no_pod_is_privileged_and_only_the_trainer_is_root(fake):
    _, _, (jobset,) = up(fake, "--tools", "configs/tools/serper.py", "--tools-image", "reg/tools:1")
    jobs = check_jobset(jobset)
    security = trainer(jobs)[1]["securityContext"]
    assert "privileged" not in security and security["capabilities"] == {"drop": ["ALL"], "add": ["SYS_RESOURCE"]}
    server = jobs["tools"]["template"]["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert server["runAsNonRoot"] is True and server["capabilities"] == {"drop": ["ALL"]}
    for context in (security, server):
        assert context["allowPrivilegeEscalation"] is False


GOOD = [
    "sft", "--config", "configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4", "--config.checkpoint=/mnt/Qwen2.5-VL-7B-Instruct",
    "--config.sft.data.sets=('/mnt/data/train.array_record',)", "--workdir", "/mnt/runs/sft7b",
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "ready: sft; v5p:2x2x4: 16 devices, 4 processes"),
        ({2: "configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2"}, "name configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4"),
        ({2: "configs/sft_qwen2_5_vl_8b.py:v5p:2x2x4"}, "no config file at configs/sft_qwen2_5_vl_8b.py"),
        ({4: "--config.sft.data.set=('a',)"}, "did you mean 'sft.data.sets'"),
        ({6: "runs/sft7b"}, "is lost with the run's machines: give a directory below /mnt"),
    ],
)
def test_a_dry_run_refuses_what_the_check_refuses(fake, change, message):
    words = [change.get(place, word) for place, word in enumerate(GOOD)]
    done, calls, _ = up(fake, "--dry-run", command=words, PYTHON=sys.executable)
    assert done.returncode == (2 if change else 0) and message in done.stderr and calls == []
    assert ("kubectl apply" in done.stdout) == (not change)


def test_the_check_knows_slices_mount_and_the_search_server_s_address(fake, tmp_path):
    up(fake, "--topology", "v5p:4x4x4:2", "--tools", "c.py", "--tools-image", "i")
    checked, server = (tmp_path / "fake" / "checked").read_text().splitlines()
    assert server.strip() == "check --mount /mnt -- serve-tools --config c.py"
    assert checked.startswith(
        "check --topology v5p:4x4x4:2 --mount /mnt -- grpo --workdir /mnt/it's here --distributed "
    )
    assert "--config.tools.url=http://run1-tools-0-0.run1:8765" in checked


def test_a_wait_for_nodes_is_told_once_with_its_reason(fake):
    done, _, _ = up(
        fake,
        files={
            "terminalState": "\n\nCompleted\n",
            "message": "0/3 nodes are available: 3 Insufficient google.com/tpu.\n",
        },
    )
    assert done.returncode == 0
    assert done.stdout.count("waiting for nodes: 0/3 nodes are available") == 1 and "no quota" in done.stdout


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"', "the cluster has no JobSet"),
        ("error: You must be logged in to the server (Unauthorized)", "gcloud container clusters get-credentials"),
        ("executable gke-gcloud-auth-plugin not found", "gcloud auth login"),
        ('jobsets is forbidden: User "u" cannot create', "Kubernetes Engine Developer"),
        ("spec.failurePolicy: Invalid value: Value is immutable", "run1 exists already"),
    ],
)
def test_a_refusal_says_what_to_do(fake, said, message):
    done, calls, _ = up(fake, files={"error": said})
    assert done.returncode == 2 and message in done.stderr and len(calls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown step 'fly'"),
        (["up"], "--name is missing"),
        (["up", "--name", "Run_1"], "lower-case letters, digits and -"),
        (["up", "--name", "a"], "--image is missing"),
        (["up", *RUN], "no training command"),
        (["up", *RUN, "--topology", "v5p:2x2x3", "--", *TRAIN], "slices of v5p are 2x2x1"),
        (["up", *RUN, "--topology", "h100:8", "--", *TRAIN], "are GPUs: this file is for TPU slices"),
        (["up", *RUN, "--topology", "v5e:2x2:2", "--", *TRAIN], "needs several hosts per slice"),
        (["up", *RUN, "--tools", "c.py", "--", *TRAIN], "--tools needs --tools-image"),
        (["up", *RUN, "--bucket", "gs://b: {x}", "--", *TRAIN], "BUCKET is 'gs://b: {x}'"),
        (["secret", "--name", "keys", "--secrets", "/nowhere"], "--secrets must name a file"),
        (["tools", "--name", "search", "--image", "i"], "no server config"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_asked_of_the_cluster(fake, arguments, message):
    done, calls, _ = fake("gke.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr and calls == []


@pytest.mark.parametrize("script", ["gke.sh", "xpk.sh"])
def test_a_dry_run_calls_nothing(fake, script):
    more = RUN if script == "gke.sh" else [*RUN[:4], *RUN[6:], "--cluster", "c", "--zone", "z", "--project", "p"]
    done, calls, _ = fake(script, "up", *more, "--secret", "keys", "--dry-run", "--", *TRAIN)
    assert done.returncode == 0 and calls == [], done.stderr
    assert "+ kubectl apply" in done.stdout if script == "gke.sh" else "+ xpk workload create" in done.stdout
