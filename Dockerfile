# A broker in a small image: `plait serve` as a user of its own, everything that it keeps in /data.
#
#   docker build -t plait .
#   docker run -p 127.0.0.1:4150:4150 -v plait:/data plait --insecure
#
# Inside, it listens on all addresses of the container, so it has to be told that this is meant (--insecure, which
# docs/security.md explains), and to be reachable from outside only where it should be (-p 127.0.0.1:...).
# docker-compose.yml has a cluster of three. PYTHON_IMAGE: any image with Python 3.11 or newer and pip.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# a package index other than pip's own; not in the image that comes out
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/plait
WORKDIR /source
COPY constraints.txt ./
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_BUILD_CONSTRAINT=/source/constraints.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY plait plait
COPY replication replication
COPY cluster cluster
COPY node node
COPY gateways gateways
RUN python3 -m pip wheel --no-deps --wheel-dir /wheels .
RUN python3 -m pip --python /opt/plait/bin/python3 install --no-compile /wheels/plait-*.whl \
    && /opt/plait/bin/python3 -m compileall -q /opt/plait/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 plait \
    && useradd --uid 10001 --gid plait --no-create-home --home-dir /data --shell /usr/sbin/nologin plait \
    && install -d -o plait -g plait -m 0750 /data
COPY --from=build /opt/plait /opt/plait
ENV PATH=/opt/plait/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PLAIT_DATA=/data PLAIT_NATIVE=0.0.0.0:4150 PLAIT_LOG__FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
# clients, other nodes, health and metrics
EXPOSE 4150 4151 4152
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:4152/healthz', timeout=3)"]
ENTRYPOINT ["plait", "serve"]
