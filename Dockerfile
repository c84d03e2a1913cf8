# One image for every process: `lockstep owner|frontend|serve` and `lockstep-operator`.
#
# `make image` builds it. An index of packages other than the usual one comes from the environment of whoever builds:
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL are handed over as build arguments, and are not kept in the image.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv --without-pip /opt/lockstep
# What Lockstep needs changes seldom: it has a layer of its own, which is made of these two files alone.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
x = p['optional-dependencies']; print(*p['dependencies'], *x['cluster'], *x['operator'], sep='\n')" > requirements.txt \
 && python3 -m pip --python /opt/lockstep/bin/python install --only-binary :all: -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY services services
COPY operator operator
RUN python3 -m pip wheel --no-deps --wheel-dir /wheels . \
 && python3 -m pip --python /opt/lockstep/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="Lockstep" \
      org.opencontainers.image.description="A message broker with real session locks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN mkdir -m 0750 /var/lib/lockstep && chown 65532:65532 /var/lib/lockstep
COPY --from=build /opt/lockstep /opt/lockstep
ENV PATH=/opt/lockstep/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp USER=lockstep LOCKSTEP_DATA_DIR=/var/lib/lockstep
WORKDIR /tmp
# A user who is in no list of users; who asks for a name gets that of $USER. Nothing is written but /tmp, and /var/lib/lockstep by
# `lockstep serve`.
USER 65532:65532
EXPOSE 7700 7701 7702 7710 9464
ENTRYPOINT ["lockstep"]
CMD ["serve", "--host", "0.0.0.0", "--log-format", "json"]
