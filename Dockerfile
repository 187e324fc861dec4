# Worker, producer and the database's commands in one image; see docs/containers.md.
#
#   docker build -t facesieve .                                     for CPUs: OpenVINO, without TensorFlow
#   docker build -t facesieve:gpu --build-arg ACCELERATOR=gpu .     for NVIDIA GPUs: TensorFlow with CUDA
#
# For BuildKit and the classic builder. BASE may name a digest, too.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ACCELERATOR=cpu
ARG EXTRAS=answers,cloud,faces,ops,postgres
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/venv
# What it depends on comes first: that is large, and changes less often than the code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN case "$ACCELERATOR" in cpu) engine=worker ;; gpu) engine=gpu ;; *) echo "ACCELERATOR is cpu or gpu" >&2; exit 2 ;; esac \
    && mkdir core db model producer worker \
    && pip install -c constraints.txt ".[$engine,$EXTRAS]" \
    && pip uninstall --yes facesieve
COPY core core/
COPY db db/
COPY model model/
COPY producer producer/
COPY worker worker/
COPY deploy/compose/convert.py ./
# OpenVINO runs the converted networks of the shipped models: TensorFlow, two thirds of the image, is needed no more.
RUN pip install --no-deps . \
    && mkdir -p /opt/facesieve/cache \
    && if [ "$ACCELERATOR" = cpu ]; then python convert.py /opt/facesieve/cache && pip uninstall --yes tensorflow libclang; fi

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FACESIEVE_DATA_DIR=/var/lib/facesieve HOME=/var/lib/facesieve
RUN groupadd --gid 10001 facesieve \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/facesieve --shell /usr/sbin/nologin facesieve \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/facesieve
COPY --from=build /opt /opt
COPY deploy/compose/entrypoint.sh /usr/local/bin/facesieve-entry
USER 10001:10001
WORKDIR /var/lib/facesieve
STOPSIGNAL SIGTERM
# For a worker; the start covers loading and warming up. Other commands have others, or none, in docker-compose.yml.
HEALTHCHECK --interval=30s --timeout=15s --start-period=120s --retries=3 CMD ["worker", "check", "--live"]
ENTRYPOINT ["/bin/sh", "/usr/local/bin/facesieve-entry"]
CMD ["worker", "start"]
