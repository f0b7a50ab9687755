"""Amazon SageMaker without an account: moto answers the API, processes of this machine do the work.

    with LocalSageMaker():
        ...  # boto3 and the SageMaker SDK, as with AWS

To moto alone every job is done at once. Here CreateTrainingJob runs the job, CreateHyperParameterTuningJob a series of
them, and CreateEndpoint the server (`local_containers`). botocore checks requests against the service's own model, and
reads answers by it. moto and these doubles do not check whether an instance type or an image exists, what a role may do
(the SDK's question is answered with yes), quotas, and most combinations of arguments.

A tuning job's strategy Random draws at random; Bayesian is Optuna's TPE, which is not the algorithm of SageMaker.
Limits of memory and disk, and instances beyond the first, are missing.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import optuna
from local_containers import Server, Training
from moto import mock_aws
from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = "sagemaker"
_TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
_NO_TELEMETRY = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
_ENDED = ("Completed", "Failed", "Stopped")
_OF_A_SUMMARY = (
    *("TrainingJobName", "TrainingJobArn", "TrainingJobStatus", "CreationTime", "TrainingStartTime", "TrainingEndTime"),
    "FailureReason",
)


class LocalSageMaker:
    """The doubles, in force from `start` to `stop` or in a `with` block, for all threads of this process.

    Attributes:
        role: ARN of a role that SageMaker may assume.
        refused: hosts on other machines that something tried to reach. It gets a ConnectionRefusedError.
    """

    role = f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._undo = ExitStack()
        self._trainings: dict[str, Training] = {}
        self._servers: dict[str, Server] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> LocalSageMaker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer AWS's API in this process, and close the way to other machines."""
        directory = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="sagemaker-")))
        configuration = directory / "config.yaml"
        configuration.write_text(_NO_TELEMETRY)
        settings = {"AWS_DEFAULT_REGION": REGION, "SAGEMAKER_USER_CONFIG_OVERRIDE": str(configuration)}
        self._undo.enter_context(mock.patch.dict(os.environ, settings))
        self._refuse_connections()
        self._undo.enter_context(mock_aws())
        for response, action in (
            (IamResponse, self.simulate_principal_policy),
            (SageMakerResponse, self.create_training_job),
            (SageMakerResponse, self.stop_training_job),
            (SageMakerResponse, self.create_hyper_parameter_tuning_job),
            (SageMakerResponse, self.list_training_jobs_for_hyper_parameter_tuning_job),
            (SageMakerResponse, self.create_endpoint),
            (SageMakerResponse, self.delete_endpoint),
            (SageMakerRuntimeResponse, self.invoke_endpoint),
        ):
            self._answer(response, action.__name__, action)
        for described in ("hyper_parameter_tuning_job", "model", "endpoint_config", "endpoint"):
            self._answer(SageMakerResponse, f"describe_{described}", without_empty)
        trust = json.dumps({"Version": "2012-10-17", "Statement": [_TRUST]})
        boto3.client("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=trust)
        atexit.register(self.stop)

    def stop(self) -> None:
        """End all jobs and endpoints, and give AWS back to boto3."""
        works: list[Training | Server] = [*self._trainings.values(), *self._servers.values()]
        for work in works:
            work.stop()
        for thread in self._threads:
            thread.join()
        self._trainings, self._servers, self._threads = {}, {}, []
        atexit.unregister(self.stop)
        self._undo.close()

    def _answer(self, response: Any, name: str, action: Callable[[Any, Any], Any]) -> None:
        """Let moto answer the action of this name with another; that one is given moto's own answer to call."""
        own = getattr(response, name, None)

        def answer(self: Any) -> Any:
            return action(self, own and own.__get__(self))

        self._undo.enter_context(mock.patch.object(response, name, answer, create=True))

    def _refuse_connections(self) -> None:
        connect, resolve = socket.socket.connect, socket.getaddrinfo

        def refuse(host: object) -> None:
            if host not in (None, "", b"", "localhost", "127.0.0.1", "::1"):
                self.refused.append(str(host))
                raise ConnectionRefusedError(f"{host} is another machine, and the doubles of SageMaker let nothing out")

        def guarded_connect(self: socket.socket, address: Any) -> None:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(address[0])
            connect(self, address)

        def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
            refuse(host)
            return resolve(host, *args, **kwargs)

        self._undo.enter_context(mock.patch.object(socket.socket, "connect", guarded_connect))
        self._undo.enter_context(mock.patch.object(socket, "getaddrinfo", guarded_resolve))

    def _in_background(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    # Roles

    def simulate_principal_policy(self, response: Any, _: object) -> Any:
        """Allow everything: the SDK asks before it sends a job."""
        allowed = [{"EvalActionName": name, "EvalDecision": "allowed"} for name in response._get_param("ActionNames")]
        return ActionResult({"EvaluationResults": allowed, "IsTruncated": False})

    # Training jobs

    def create_training_job(self, response: Any, own: Callable[[], Any]) -> Any:
        request = json.loads(response.body)
        jobs = response.sagemaker_backend.training_jobs
        name = request["TrainingJobName"]
        if name in jobs:
            raise ResourceInUseException(f"Training job names must be unique within an AWS account: {name}")
        answer = own()
        job = jobs[name]
        job.algorithm_specification = request["AlgorithmSpecification"]  # moto's has other metrics
        job.environment = request.get("Environment") or {}
        job.training_job_status, job.secondary_status, job.final_metric_data_list = "InProgress", "Starting", []
        job.training_start_time = job.training_end_time = None
        self._trainings[name] = Training(request, job.model_artifacts["S3ModelArtifacts"])
        self._in_background(self._train, job, self._trainings[name])
        return answer

    def _train(self, job: Any, training: Training) -> None:
        def at_phase(phase: str) -> None:
            job.secondary_status, job.last_modified_time = phase, datetime.now(UTC)
            if phase == "Training":
                job.training_start_time = datetime.now(UTC)

        try:
            outcome = training.run(at_phase)
        except Exception as error:  # noqa: BLE001  a job that cannot start has failed, whatever it was
            job.failure_reason, job.secondary_status, job.training_job_status = str(error), "Failed", "Failed"
            return
        now = job.training_end_time = job.last_modified_time = datetime.now(UTC)
        job.final_metric_data_list = [
            {"MetricName": name, "Value": value, "Timestamp": now} for name, value in outcome.metrics.items()
        ]
        job.training_time_in_seconds = job.billable_time_in_seconds = max(1, round(outcome.seconds))
        job.failure_reason, job.secondary_status = outcome.reason, outcome.status
        job.training_job_status = outcome.status  # the last: whoever waits sees all the rest

    def stop_training_job(self, response: Any, _: object) -> Any:
        name = response._get_param("TrainingJobName")
        job = response.sagemaker_backend.training_jobs.get(name)
        if job is None or job.training_job_status not in ("InProgress", "Stopping"):
            status = "is not there" if job is None else f"has the status {job.training_job_status}"
            raise ValidationError(f"The request was rejected because the training job {name} {status}.")
        job.training_job_status = job.secondary_status = "Stopping"
        self._in_background(self._trainings[name].stop)
        return ActionResult({})

    # Tuning jobs

    def create_hyper_parameter_tuning_job(self, response: Any, own: Callable[[], Any]) -> Any:
        request = json.loads(response.body)
        config = request["HyperParameterTuningJobConfig"]
        unknown = [name for name in ("WarmStartConfig", "Autotune", "TrainingJobDefinitions") if request.get(name)]
        if config["Strategy"] not in ("Random", "Bayesian") or unknown:
            raise ValidationError(f"The doubles of SageMaker have no {', '.join(unknown) or config['Strategy']}.")
        space = search_space(config["ParameterRanges"])
        answer = own()
        tuning = response.sagemaker_backend.hyper_parameter_tuning_jobs[request["HyperParameterTuningJobName"]]
        tuning.hyper_parameter_tuning_job_status = "InProgress"
        tuning.best_training_job = tuning.OverallBestTrainingJob = tuning.hyper_parameter_tuning_end_time = None
        tuning.tuning_job_completion_details = tuning.consumed_resources = None
        tuning.training_job_status_counters = dict.fromkeys(tuning.training_job_status_counters, 0)
        tuning.objective_status_counters = dict.fromkeys(tuning.objective_status_counters, 0)
        tuning.jobs = []
        self._in_background(self._tune, tuning, request, space)
        return answer

    def _tune(self, tuning: Any, request: dict[str, Any], space: dict[str, Any]) -> None:
        config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
        objective, limits = config["HyperParameterTuningJobObjective"], config["ResourceLimits"]
        sampler = optuna.samplers.RandomSampler if config["Strategy"] == "Random" else optuna.samplers.TPESampler
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction=objective["Type"].lower(), sampler=sampler(seed=config.get("RandomSeed")))

        def run(number: int) -> None:
            trial = study.ask(space)
            tuned = {name: str(value) for name, value in trial.params.items()}
            name = f"{request['HyperParameterTuningJobName']}-{number:03d}"
            job = self._run_one(name, definition, tuned, objective["MetricName"])
            values = {of["MetricName"]: of["Value"] for of in job.get("FinalMetricDataList", [])}
            value = values.get(objective["MetricName"])
            summary = {key: job[key] for key in _OF_A_SUMMARY if key in job} | {"TunedHyperParameters": tuned}
            summary["ObjectiveStatus"] = "Failed" if value is None else "Succeeded"
            if value is not None:
                summary["FinalHyperParameterTuningJobObjectiveMetric"] = {**objective, "Value": value}
            study.tell(trial, value, None if value is not None else optuna.trial.TrialState.FAIL)
            tuning.jobs.append(summary)
            counter = {"Failed": "NonRetryableError"}.get(job["TrainingJobStatus"], job["TrainingJobStatus"])
            tuning.training_job_status_counters[counter] += 1
            tuning.objective_status_counters[summary["ObjectiveStatus"]] += 1

        with concurrent.futures.ThreadPoolExecutor(limits["MaxParallelTrainingJobs"]) as pool:
            futures = [pool.submit(run, number) for number in range(1, limits["MaxNumberOfTrainingJobs"] + 1)]
            failed = [future.exception() for future in futures]
        key = "FinalHyperParameterTuningJobObjectiveMetric"
        measured = [job for job in tuning.jobs if key in job]
        choose = max if objective["Type"] == "Maximize" else min
        if measured:
            tuning.best_training_job = choose(measured, key=lambda job: float(job[key]["Value"]))
        tuning.failure_reason = next((str(error) for error in failed if error), "")
        tuning.hyper_parameter_tuning_end_time = datetime.now(UTC)
        tuning.hyper_parameter_tuning_job_status = "Completed" if measured else "Failed"

    def _run_one(self, name: str, definition: dict[str, Any], tuned: dict[str, str], objective: str) -> dict[str, Any]:
        """Run one training job of a tuning job, through the API. Returns its description."""
        sagemaker = boto3.client("sagemaker")
        same = {
            key: value for key, value in definition.items() if key not in ("StaticHyperParameters", "DefinitionName")
        }
        given = {**definition.get("StaticHyperParameters", {}), **tuned, "_tuning_objective_metric": objective}
        sagemaker.create_training_job(TrainingJobName=name, HyperParameters=given, **same)
        while (job := sagemaker.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] not in _ENDED:
            time.sleep(0.2)
        found: dict[str, Any] = job
        return found

    def list_training_jobs_for_hyper_parameter_tuning_job(self, response: Any, _: object) -> Any:
        name = response._get_param("HyperParameterTuningJobName")
        tuning = response.sagemaker_backend.hyper_parameter_tuning_jobs[name]
        return ActionResult({"TrainingJobSummaries": tuning.jobs})

    # Endpoints

    def create_endpoint(self, response: Any, own: Callable[[], Any]) -> Any:
        answer = own()
        backend, name = response.sagemaker_backend, response._get_param("EndpointName")
        endpoint = backend.endpoints[name]
        endpoint.endpoint_status = "Creating"
        (variant,) = backend.endpoint_configs[endpoint.endpoint_config_name].production_variants
        model = backend._models[variant["ModelName"]].primary_container
        self._in_background(self._serve, endpoint, model["ModelDataUrl"], model.get("Environment") or {})
        return answer

    def _serve(self, endpoint: Any, model_uri: str, environment: dict[str, str]) -> None:
        server = Server(endpoint.endpoint_name, model_uri, environment)
        self._servers[endpoint.endpoint_name] = server
        endpoint.failure_reason = server.wait_until_ready()
        endpoint.endpoint_status = "Failed" if endpoint.failure_reason else "InService"

    def delete_endpoint(self, response: Any, own: Callable[[], Any]) -> Any:
        answer = own()
        server = self._servers.pop(response._get_param("EndpointName"), None)
        if server is not None:
            server.stop()
        return answer

    def invoke_endpoint(self, response: Any, _: object) -> Any:
        name = response.path.split("/")[2]
        if name not in self._servers:
            raise ValidationError(f"Endpoint {name} of account {ACCOUNT} not found.")
        wanted = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")
        headers = {key: value for key, value in response.headers.items() if key.lower() in wanted}
        body = response.body if isinstance(response.body, bytes) else response.body.encode()
        status, answered, content = self._servers[name].request("POST", "/invocations", body, headers)
        if status == 200:
            kept = {"Content-Type": answered.get("content-type", "application/octet-stream")}
            return 200, {**kept, "x-Amzn-Invoked-Production-Variant": "AllTraffic"}, content
        kind, told = ("client" if status < 500 else "server"), content.decode(errors="replace")
        message = f'Received {kind} error ({status}) from primary with message "{told}".'
        error = {"Message": message, "OriginalStatusCode": status, "OriginalMessage": told}
        # moto takes the status from the headers.
        return json.dumps(error), {"status": 424, "x-amzn-errortype": "ModelError", "Content-Type": "application/json"}


def without_empty(_: object, own: Callable[[], Any]) -> Any:
    """Give moto's own answer without members that are there and empty, which the SDK does not take."""
    return ActionResult({name: value for name, value in own().result.items() if value not in (None, {})})


def search_space(ranges: dict[str, Any]) -> dict[str, Any]:
    """Return the ParameterRanges of a tuning job as distributions of Optuna, by name. Auto scaling is linear."""
    space: dict[str, Any] = {}
    kinds: tuple[tuple[str, Any, Any], ...] = (
        ("IntegerParameterRanges", int, optuna.distributions.IntDistribution),
        ("ContinuousParameterRanges", float, optuna.distributions.FloatDistribution),
    )
    for kind, number, distribution in kinds:
        for of in ranges.get(kind, []):
            scaling = of.get("ScalingType", "Auto")
            if scaling == "ReverseLogarithmic":
                raise ValidationError(f"The doubles of SageMaker have no {scaling} scaling of {of['Name']}.")
            low, high = number(of["MinValue"]), number(of["MaxValue"])
            space[of["Name"]] = distribution(low, high, log=scaling == "Logarithmic")
    for of in ranges.get("CategoricalParameterRanges", []):
        space[of["Name"]] = optuna.distributions.CategoricalDistribution(of["Values"])
    return space
