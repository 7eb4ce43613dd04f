"""`kdsearch worker script`: ready files that start workers on a cluster or on another machine.

No password stands in any of them: storage and artifacts come from the environment or a secret.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import typer

from kdsearch.cli import output
from kdsearch.cli.front import StudyArgument
from kdsearch.cli.options import Options
from kdsearch.core.errors import UsageError
from kdsearch.core.spec import NAME_PATTERN


class Place(NamedTuple):
    """What is to be started."""

    study: str
    workers: int
    gpu: bool
    threads: int
    image: str

    @property
    def arguments(self) -> list[str]:
        """Of `kdsearch`."""
        device = "cuda:0" if self.gpu else "cpu"
        threads = str(self.threads)
        return ["worker", "start", "--study", self.study, "--device", device, "--threads", threads]

    @property
    def label(self) -> str:
        """A name that Kubernetes takes, too."""
        return f"kdsearch-{re.sub(r'[^a-z0-9]+', '-', self.study).strip('-')}"


def script(
    options: Options,
    study: StudyArgument,
    slurm: Annotated[bool, typer.Option("--slurm", help="A batch file for sbatch.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="A Job for kubectl apply.")] = False,
    compose: Annotated[bool, typer.Option("--compose", help="A file for docker compose.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=1000, help="How many.")] = 4,
    gpu: Annotated[bool, typer.Option("--gpu", help="One GPU for each of them.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Torch threads of each.")] = 1,
    image: Annotated[str, typer.Option("--image", help="The container image.")] = "kdsearch",
) -> None:
    """Print a ready file that starts workers: for SLURM, Kubernetes or docker compose.

    It holds no password. What its first lines say is to be done once.

    Example: kdsearch worker script sms-spam --slurm --workers 8 > workers.sh
    """
    asked = [name for name, wanted in zip(MADE, (slurm, kubernetes, compose), strict=True) if wanted]
    if len(asked) != 1:
        raise UsageError(
            "for which system?" if not asked else "one system at a time",
            hint="one of --slurm, --kubernetes, --compose",
        )
    if not re.match(NAME_PATTERN, study):
        raise UsageError(f"no study is called {study!r}", hint="kdsearch study list")
    if not re.fullmatch(r"[\w./:@-]+", image, re.ASCII):
        raise UsageError(f"{image!r} names no image", hint="for example: --image registry.example/kdsearch:1")
    (kind,) = asked
    text = MADE[kind](Place(study, workers, gpu, threads, image))
    output.show(options, "worker_script", {"study": study, "kind": kind, "text": text}, human=list)
    if not options.json and not options.csv:
        output.write(text.rstrip("\n"))


def slurm_script(place: Place) -> str:
    """An array whose members are workers; SLURM's warning before the end is what drains them."""
    gpu = "#SBATCH --gres=gpu:1\n" if place.gpu else ""
    return f"""\
#!/bin/bash
# Workers of kdsearch on study {place.study}. Once, a file that only you can read:
#   install -m 600 /dev/null ~/.kdsearch.env, with the lines
#   KDSEARCH_STORAGE=postgresql://USER:PASSWORD@HOST:5432/DATABASE
#   KDSEARCH_ARTIFACTS=file:///a/folder/that/every/node/sees
# Then: sbatch THIS_FILE. Two minutes before its time is over a worker puts its trial away for another one.
#SBATCH --job-name={place.label}
#SBATCH --array=1-{place.workers}
#SBATCH --cpus-per-task={place.threads + 1}
{gpu}#SBATCH --mem=8G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output={place.label}-%A-%a.log
set -euo pipefail
if [ -z "${{KDSEARCH_STORAGE:-}}" ]; then
  set -a
  . "${{KDSEARCH_ENV:-$HOME/.kdsearch.env}}"
  set +a
fi
: "${{KDSEARCH_STORAGE:?it names the Postgres}}" "${{KDSEARCH_ARTIFACTS:?it names the artifact store}}"
exec kdsearch {" ".join(place.arguments)}
"""


def kubernetes_job(place: Place) -> str:
    """A work queue: pods end by themselves when the study is done."""
    limits = ', "nvidia.com/gpu": "1"' if place.gpu else ""
    requests = f'{{cpu: "{place.threads + 1}", memory: 4Gi{limits}}}'
    return f"""\
# Workers of kdsearch on study {place.study}. Once, from a file with the lines KDSEARCH_STORAGE=... and
# KDSEARCH_ARTIFACTS=... (s3://bucket/folder, or a folder that every pod sees):
#   kubectl create secret generic kdsearch --from-env-file=kdsearch.env
# Then: kubectl apply -f THIS_FILE
apiVersion: batch/v1
kind: Job
metadata:
  name: {place.label}
  labels: {{app.kubernetes.io/name: kdsearch, kdsearch/study: "{place.study}"}}
spec:
  parallelism: {place.workers}
  backoffLimit: {4 * place.workers}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: kdsearch, kdsearch/study: "{place.study}"}}
    spec:
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 120      # a worker puts its trial away for another one
      securityContext: {{runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001}}
      # One to a node: latency is measured while nothing else trains there, and pods do not share locks.
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {{matchLabels: {{app.kubernetes.io/name: kdsearch}}}}
      containers:
        - name: worker
          image: {place.image}
          command: {_flow(["kdsearch", *place.arguments])}
          envFrom: [{{secretRef: {{name: kdsearch}}}}]
          securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
          resources:
            requests: {requests}
            limits: {{memory: 8Gi{limits}}}
"""


def compose_file(place: Place) -> str:
    """Workers of one host, which share their locks."""
    gpu = "\n      resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}"
    return f"""\
# Workers of kdsearch on study {place.study}, on this host. Once, a file .env beside this one with the lines
# KDSEARCH_STORAGE=postgresql://USER:PASSWORD@HOST:5432/DATABASE and KDSEARCH_ARTIFACTS=s3://BUCKET/FOLDER
# Then: docker compose --file THIS_FILE up --detach
name: {place.label}
services:
  worker:
    image: {place.image}
    command: {_flow(["kdsearch", *place.arguments])}
    environment:
      KDSEARCH_STORAGE: ${{KDSEARCH_STORAGE:?set it in .env}}
      KDSEARCH_ARTIFACTS: ${{KDSEARCH_ARTIFACTS:?set it in .env}}
      AWS_ACCESS_KEY_ID:
      AWS_SECRET_ACCESS_KEY:
      AWS_DEFAULT_REGION:
    volumes: ["locks:/locks"]      # nothing trains on this host while one of them measures
    init: true
    restart: on-failure:5
    stop_grace_period: 120s
    deploy:
      replicas: {place.workers}{gpu if place.gpu else ""}
volumes: {{locks: {{}}}}
"""


def _flow(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


MADE = {"slurm": slurm_script, "kubernetes": kubernetes_job, "compose": compose_file}
