# The image of kdistill's training job and endpoint on Amazon SageMaker. Nothing in it is particular to SageMaker but the
# entry point, so it also runs elsewhere:
#
#     docker build --tag kdistill .
#     docker run --volume "$PWD/job:/opt/ml" kdistill train       # a job laid out below job/ (docs/how-to/sagemaker.md)
#     docker run --publish 8080:8080 --volume "$PWD/job:/opt/ml" kdistill serve
#     docker run --entrypoint kdistill kdistill info
#
# It runs as an ordinary user. AWS asks for root in images of endpoints ("SageMaker AI expects all containers to run with
# root users") and mounts directories of its own over /opt/ml: build the image that you push there with
#
#     docker build --build-arg USER=root --tag kdistill .
#
# tools/image.py carries these instructions out without Docker (`make image`). It knows no other forms than those here.

# Python and Debian as the tests have them. Both stages begin with it: /install below fits into the second.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libblis-pthread-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE NOTICE ./
COPY THIRD_PARTY THIRD_PARTY
COPY csrc csrc
COPY kdistill kdistill
# The extras that a job and an endpoint use; PyTorch is in none of them. MPICH joins the instances of a job that has
# several; it needs no ssh. Symbols are stripped: 3 MB instead of 12.
RUN LDFLAGS=-Wl,--strip-all python -m pip install --no-cache-dir --root-user-action ignore --root /install \
    ".[hub,data,datasets,search,tensorboard,serve,mpi]" mpich

FROM ${BASE}
# The wheel, what it needs and the command, compiled: what only the compiler needs stays in the first stage.
COPY --from=build /install /
# SageMaker mounts its directories over these. Elsewhere the user must be able to write a model and its checkpoints.
RUN useradd --create-home --uid 1000 kdistill \
    && mkdir -p /opt/ml/input /opt/ml/model /opt/ml/output /opt/ml/checkpoints \
    && chown -R kdistill:kdistill /opt/ml
# Lines of the log appear when they are printed: SageMaker reads the metrics from them while the job runs.
ENV PYTHONUNBUFFERED=1
# An inference pipeline gives each container another port, in SAGEMAKER_BIND_TO_PORT.
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true
EXPOSE 8080
ARG USER=kdistill
USER ${USER}
# A place where every user may write: what a command writes without an absolute path.
WORKDIR /tmp
# No HEALTHCHECK: a training job listens on no port, and SageMaker asks an endpoint for /ping itself.
# The exec form: SageMaker's SIGTERM reaches Python and not a shell. `train` or `serve` is appended.
ENTRYPOINT ["python", "-m", "kdistill.sagemaker"]
