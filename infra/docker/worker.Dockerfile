# Workers, the bootstrap job, and the command line: everything of requirements.lock, and this checkout.
#   docker build -f infra/docker/worker.Dockerfile --target cpu -t remint/worker:0.1.0-cpu .
#   docker build -f infra/docker/worker.Dockerfile --target gpu -t remint/worker:0.1.0-gpu .
# TORCH_INDEX: PyTorch's index of CPU builds (pytorch.org names it) makes the cpu image 4 GB smaller; torch's version
# is that of the lock in any case. UID: of who owns the git repository that workers clone, if it is a folder.
FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=true GX_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true HF_HUB_OFFLINE=1
RUN apt-get update && apt-get install -y --no-install-recommends git openssh-client ca-certificates \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=
COPY requirements.lock /srv/remint/requirements.lock
RUN pip install --no-cache-dir --disable-pip-version-check -r /srv/remint/requirements.lock \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}
COPY . /srv/remint
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps -e /srv/remint
ARG UID=1000
RUN useradd --create-home --home-dir /work --uid "$UID" remint \
    && install -d -o remint -g remint /cache \
    && git config --system user.name remint && git config --system user.email remint@localhost \
    && git config --system --add safe.directory '*'
USER remint
WORKDIR /work
ENTRYPOINT ["/srv/remint/infra/docker/worker.sh"]

FROM base AS cpu

FROM base AS gpu
# CUDA comes with torch from the lock; the driver from the machine
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
