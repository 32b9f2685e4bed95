# Prefect's server in the version that the workers have: requirements.lock. (Its pages come with the package.)
#   docker build -f infra/docker/prefect.Dockerfile -t remint/prefect:0.1.0 .
FROM python:3.11.14-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --disable-pip-version-check --constraint /tmp/requirements.lock prefect asyncpg \
    && rm /tmp/requirements.lock
RUN useradd --create-home --home-dir /work --uid 1000 remint
USER remint
WORKDIR /work
EXPOSE 4200
