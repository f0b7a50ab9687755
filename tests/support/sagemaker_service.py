"""The SageMaker SDK against moto: the requests it sends, and what it uploads, laid out as the service would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import botocore.client
from moto import mock_aws

from support.small_job import write_configuration

REGION = "eu-central-1"
BUCKET = "of-the-test"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/kdistill:latest"
_VARIABLES = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
_NO_TELEMETRY = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
_TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


class Service:
    """The double of AWS that is in force.

    Attributes:
        role: ARN of a role that SageMaker may assume.
        requests: name of the operation and arguments of every call, in order. botocore has checked them.
    """

    role: str

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def of(self, operation: str) -> dict[str, Any]:
        """Return the arguments of the one call of `operation`."""
        (arguments,) = (arguments for name, arguments in self.requests if name == operation)
        return arguments

    def lay_out(self, request: Mapping[str, Any], base: Path) -> Path:
        """Lay out below `base` what a container of the training job of `request` finds below /opt/ml."""
        channels = request["InputDataConfig"]
        about = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
        write_configuration(base, request["HyperParameters"], {each["ChannelName"]: about for each in channels})
        bucket_of = boto3.resource("s3").Bucket
        for channel in channels:
            bucket, _, prefix = channel["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://").partition("/")
            for item in bucket_of(bucket).objects.filter(Prefix=prefix):
                path = base / "input" / "data" / channel["ChannelName"] / item.key.removeprefix(prefix).lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                bucket_of(bucket).download_file(item.key, str(path))
        return base


@contextmanager
def service(directory: Path) -> Iterator[Service]:
    """Let moto answer all calls to AWS, and record them. `directory` takes the SDK's configuration."""
    configuration = directory / "sagemaker-configuration.yaml"
    configuration.write_text(_NO_TELEMETRY)
    double = Service()
    call = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        double.requests.append((operation, arguments))
        if operation == "SimulatePrincipalPolicy":  # the SDK asks what the role may do; moto does not know this action
            results = [{"EvalActionName": name, "EvalDecision": "allowed"} for name in arguments["ActionNames"]]
            return {"EvaluationResults": results, "IsTruncated": False}
        answer = call(self, operation, arguments)
        # What is not configured the service leaves out; moto describes it as {}, which the SDK rejects.
        return {name: value for name, value in answer.items() if value != {}}

    variables = _VARIABLES | {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(configuration)}
    with (
        mock.patch.dict("os.environ", variables),
        mock_aws(),
        mock.patch.object(botocore.client.BaseClient, "_make_api_call", recorded),
    ):
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        trust = json.dumps({"Version": "2012-10-17", "Statement": [_TRUST]})
        double.role = boto3.client("iam").create_role(RoleName="jobs", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        yield double
