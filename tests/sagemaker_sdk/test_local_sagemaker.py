"""The doubles of SageMaker that the notebook runs against: what they do, and what they refuse."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

for package in ("moto", "optuna"):
    pytest.importorskip(package, reason="needs the extra sagemaker-test: make sagemaker")

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kdistill:latest"
BUCKET = "rows"


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import boto3
    from local_sagemaker import LocalSageMaker

    with LocalSageMaker() as local:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield local


def job(name: str, role: str, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": role,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/output"},
        "ResourceConfig": {"InstanceType": "ml.c5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **more,
    }


def ended(name: str) -> dict[str, Any]:
    import boto3

    sagemaker = boto3.client("sagemaker")
    while (found := sagemaker.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
        time.sleep(0.05)
    described: dict[str, Any] = found
    return described


def test_the_reason_of_a_failure_is_that_of_the_job(doubles: Any) -> None:
    import boto3

    request = job("failing", doubles.role, HyperParameters={"alhpa": "0.5"})
    boto3.client("sagemaker").create_training_job(**request)
    described = ended("failing")
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("AlgorithmError: there is no hyperparameter 'alhpa'")
    assert "alpha" in described["FailureReason"]
    logs = boto3.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs")
    assert logs["logStreams"][0]["logStreamName"].startswith("failing/algo-1-")


def test_a_channel_without_objects_fails_the_job(doubles: Any) -> None:
    import boto3

    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/nothing/"}}
    channels = [{"ChannelName": "train", "DataSource": source}]
    boto3.client("sagemaker").create_training_job(**job("empty", doubles.role, InputDataConfig=channels))
    assert ended("empty")["FailureReason"] == f"ClientError: No S3 objects found under S3 URL 's3://{BUCKET}/nothing/'"


def test_a_request_that_the_service_would_not_take_is_an_error(doubles: Any) -> None:
    import boto3
    from botocore.exceptions import ClientError, ParamValidationError

    sagemaker = boto3.client("sagemaker")
    with pytest.raises(ParamValidationError, match="Unknown parameter"):
        sagemaker.create_training_job(**job("one", doubles.role, Temparature="4"))
    sagemaker.create_training_job(**job("one", doubles.role))
    with pytest.raises(ClientError, match="must be unique"):
        sagemaker.create_training_job(**job("one", doubles.role))
    ended("one")
    with pytest.raises(ClientError, match="the training job one has the status Failed"):
        sagemaker.stop_training_job(TrainingJobName="one")


def test_nothing_reaches_another_machine_while_they_are_in_force(doubles: Any) -> None:
    with pytest.raises(ConnectionRefusedError, match="another machine"):
        socket.create_connection(("example.org", 443), timeout=1)
    with socket.socket() as direct, pytest.raises(ConnectionRefusedError, match="another machine"):
        direct.connect(("192.0.2.1", 80))
    assert doubles.refused == ["example.org", "192.0.2.1"]
    doubles.stop()
    assert socket.getaddrinfo("127.0.0.1", 80)


def test_an_endpoint_without_a_model_fails(doubles: Any, tmp_path: Path) -> None:
    import boto3
    from botocore.exceptions import ClientError
    from local_containers import store_archive

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    store_archive(tmp_path / "model", f"s3://{BUCKET}/model.tar.gz")
    sagemaker = boto3.client("sagemaker")
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}
    sagemaker.create_model(ModelName="it", PrimaryContainer=container, ExecutionRoleArn=doubles.role)
    variant = {"VariantName": "AllTraffic", "ModelName": "it", "InstanceType": "ml.c5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="it", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="it", EndpointConfigName="it")
    while (found := sagemaker.describe_endpoint(EndpointName="it"))["EndpointStatus"] == "Creating":
        time.sleep(0.05)
    assert found["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check: kdistill: error:" in found["FailureReason"]
    with pytest.raises(ClientError, match="Endpoint other of account 123456789012 not found"):
        boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="other", Body=json.dumps({"inputs": "x"}))


def test_ranges_become_distributions(doubles: Any) -> None:
    from local_sagemaker import search_space
    from moto.sagemaker.exceptions import ValidationError

    space = search_space(
        {
            "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "2", "MaxValue": "10"}],
            "ContinuousParameterRanges": [
                {"Name": "learning_rate", "MinValue": "1e-5", "MaxValue": "1e-3", "ScalingType": "Logarithmic"}
            ],
            "CategoricalParameterRanges": [{"Name": "lr_scheduler_type", "Values": ["linear", "cosine"]}],
        }
    )
    assert (space["epochs"].low, space["epochs"].high, space["epochs"].log) == (2, 10, False)
    assert (space["learning_rate"].low, space["learning_rate"].high, space["learning_rate"].log) == (1e-5, 1e-3, True)
    assert space["lr_scheduler_type"].choices == ("linear", "cosine")
    reverse = {"Name": "alpha", "MinValue": "0", "MaxValue": "1", "ScalingType": "ReverseLogarithmic"}
    with pytest.raises(ValidationError):
        search_space({"ContinuousParameterRanges": [reverse]})
