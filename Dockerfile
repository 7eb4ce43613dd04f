# kdsearch with everything a worker, the CLI and the dashboard need; see docs/containers.md.
# docker build -t kdsearch .
#   TORCH_INDEX: where torch comes from; PyTorch's CPU index by default, https://download.pytorch.org/whl/cu130 for CUDA.
#   DRIVERS: further packages, such as the driver of an artifact store: "s3fs==2026.9.0".
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
FROM ${PYTHON_IMAGE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Numbers, not names, so that Kubernetes' runAsNonRoot can tell. The folders are what named volumes start from.
RUN python3 -m venv /opt/kdsearch \
 && useradd --create-home --uid 10001 kdsearch \
 && install -d -o kdsearch -g kdsearch /artifacts /exported /data /locks /state /work
ENV PATH=/opt/kdsearch/bin:$PATH KDSEARCH_HOME=/state KDSEARCH_LOCKS=/locks
WORKDIR /app

# Dependencies first, so that a change of the code or the README does not install torch again.
COPY constraints.txt ./
RUN pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml LICENSE ./
COPY kdsearch/__init__.py kdsearch/__init__.py
COPY dashboard/__init__.py dashboard/__init__.py
RUN touch README.md && pip install --constraint constraints.txt ".[onnx,dashboard,hf,zh]"

# Outside the pinned versions: what S3's driver needs is older than some of them.
ARG DRIVERS=""
RUN if [ -n "$DRIVERS" ]; then pip install $DRIVERS; fi

COPY README.md ./
COPY kdsearch kdsearch
COPY dashboard dashboard
RUN pip install --no-deps --force-reinstall .

USER 10001:10001
WORKDIR /work
CMD ["kdsearch", "--help"]
