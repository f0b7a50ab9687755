"""The requests that version 3 of the SDK makes of jobs, models and endpoints, and how its hyperparameters arrive.

The SDK checks its arguments (pydantic), botocore the request against the service's own description, moto answers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdistill.sagemaker.hyperparameters import understood
from kdistill.sagemaker.metrics import METRIC_DEFINITIONS

pytest.importorskip("sagemaker.core", reason="needs the extra sagemaker-test: make sagemaker")

# The SDK's own, as in test_model_trainer_drivers.py.
pytestmark = [
    pytest.mark.filterwarnings("ignore:sagemaker.train.configs has been moved:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning"),
]

# Name, value as a user of the SDK writes it, text in the request of a training job, and in that of a tuning job.
SENT = [
    ("epochs", 3, "3", "3"),
    ("alpha", 0.5, "0.5", "0.5"),
    ("learning_rate", 5e-05, "5e-05", "5e-05"),
    ("temperature", "2", "2", "2"),
    ("student_id", "L2-H128-A2", "L2-H128-A2", "L2-H128-A2"),
    ("run_hpo", False, "false", "False"),
    ("fp16", True, "true", "True"),
    ("hub_model_id", None, "null", "None"),
]
GIVEN = {name: value for name, value, _, _ in SENT}
INSTANCE = "ml.c5.2xlarge"  # one of those that moto knows


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Any]:
    from support.sagemaker_service import service

    with service(tmp_path) as double:
        yield double


def trainer(aws: Any, **changes: Any) -> Any:
    """Return a trainer of a job on spot instances."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.shapes import CheckpointConfig, MetricDefinition, OutputDataConfig, TensorBoardOutputConfig
    from sagemaker.core.training.configs import Compute, StoppingCondition
    from sagemaker.train import ModelTrainer
    from support.sagemaker_service import BUCKET, IMAGE

    settings = {
        "training_image": IMAGE,
        "role": aws.role,
        "sagemaker_session": Session(),
        "base_job_name": "kdistill",
        "compute": Compute(instance_type=INSTANCE, instance_count=1, enable_managed_spot_training=True),
        "stopping_condition": StoppingCondition(max_runtime_in_seconds=3600, max_wait_time_in_seconds=7200),
        "output_data_config": OutputDataConfig(s3_output_path=f"s3://{BUCKET}/output"),
        "checkpoint_config": CheckpointConfig(s3_uri=f"s3://{BUCKET}/checkpoints", local_path="/opt/ml/checkpoints"),
        "hyperparameters": GIVEN,
    }
    definitions = [MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in METRIC_DEFINITIONS]
    tensorboard = TensorBoardOutputConfig(
        s3_output_path=f"s3://{BUCKET}/tensorboard", local_path="/opt/ml/output/tensorboard"
    )
    made = ModelTrainer(**settings | changes)
    return made.with_metric_definitions(definitions).with_tensorboard_output_config(tensorboard)


def channels() -> list[Any]:
    from sagemaker.core.training.configs import InputData
    from support.sagemaker_service import BUCKET

    return [InputData(channel_name=name, data_source=f"s3://{BUCKET}/{name}/") for name in ("train", "teacher")]


def test_a_training_job_is_accepted_with_all_that_a_job_of_ours_uses(aws: Any) -> None:
    trainer(aws).train(input_data_config=channels(), wait=False, logs=False)
    request = aws.of("CreateTrainingJob")
    algorithm = request["AlgorithmSpecification"]
    assert algorithm["MetricDefinitions"] == METRIC_DEFINITIONS
    assert len(METRIC_DEFINITIONS) <= 40  # the most that the service takes; botocore does not count them
    assert "ContainerEntrypoint" not in algorithm
    assert request["EnableManagedSpotTraining"] is True
    assert request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert request["TensorBoardOutputConfig"]["LocalPath"] == "/opt/ml/output/tensorboard"
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["train", "teacher"]


def test_hyperparameters_of_a_training_job_arrive_as_text_that_means_the_same(aws: Any) -> None:
    trainer(aws).train(input_data_config=channels(), wait=False, logs=False)
    sent = aws.of("CreateTrainingJob")["HyperParameters"]
    assert sent == {name: text for name, _, text, _ in SENT}
    assert understood(sent) == understood(GIVEN)


def test_hyperparameters_of_a_tuning_job_arrive_as_text_that_means_the_same(aws: Any) -> None:
    from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter
    from sagemaker.train.tuner import HyperparameterTuner

    ranges = {
        "alpha": ContinuousParameter(0.0, 1.0),
        "learning_rate": ContinuousParameter(1e-5, 1e-3, scaling_type="Logarithmic"),
        "temperature": IntegerParameter(1, 8),
        "per_device_train_batch_size": CategoricalParameter([16, 32]),
    }
    tuner = HyperparameterTuner(
        model_trainer=trainer(aws),
        objective_metric_name="final:accuracy",
        objective_type="Maximize",
        metric_definitions=METRIC_DEFINITIONS,
        hyperparameter_ranges=ranges,
        max_jobs=4,
        max_parallel_jobs=2,
        strategy="Random",
    )
    tuner.tune(inputs=channels(), wait=False)
    request = aws.of("CreateHyperParameterTuningJob")
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert objective == {"Type": "Maximize", "MetricName": "final:accuracy"}
    definition = request["TrainingJobDefinition"]
    assert definition["EnableManagedSpotTraining"] is True
    assert definition["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert definition["AlgorithmSpecification"]["MetricDefinitions"] == METRIC_DEFINITIONS
    static = definition["StaticHyperParameters"]
    assert static == {name: text for name, _, _, text in SENT if name not in ranges}
    # To these the service adds a point of the ranges, in text, and the name of the objective.
    point = {"alpha": "0.3713", "learning_rate": "2.5e-05", "temperature": "4", "per_device_train_batch_size": "32"}
    values = {"alpha": 0.3713, "learning_rate": 2.5e-05, "temperature": 4, "per_device_train_batch_size": 32}
    expected = understood({name: value for name, value in GIVEN.items() if name not in ranges} | values)
    assert understood(static | point | {"_tuning_objective_metric": "final:accuracy"}) == expected


# What the estimators of sagemaker 2.257.7 send for GIVEN; HuggingFace adds what the toolkit reads.
OF_VERSION_2 = {
    "Estimator": {name: text for name, _, _, text in SENT},
    "HuggingFace": {
        "epochs": "3",
        "alpha": "0.5",
        "learning_rate": "5e-05",
        "temperature": '"2"',
        "student_id": '"L2-H128-A2"',
        "run_hpo": "false",
        "fp16": "true",
        "hub_model_id": "null",
        "sagemaker_submit_directory": '"s3://bucket/job/source/sourcedir.tar.gz"',
        "sagemaker_program": '"train.py"',
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"job"',
        "sagemaker_region": '"eu-central-1"',
    },
}


@pytest.mark.parametrize("estimator", OF_VERSION_2)
def test_hyperparameters_of_version_2_mean_the_same(estimator: str) -> None:
    assert understood(OF_VERSION_2[estimator]) == understood(GIVEN)


def test_a_categorical_value_of_a_tuner_of_version_2_means_the_same() -> None:
    # CategoricalParameter([16, 32]) of version 2 makes text of the numbers, and JSON of the text.
    sent = OF_VERSION_2["HuggingFace"] | {"per_device_train_batch_size": '"16"'}
    assert understood(sent) == understood(GIVEN | {"per_device_train_batch_size": 16})


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # ModelBuilder imports by old names, and warns of its defaults
def test_a_model_and_its_endpoint_are_accepted(aws: Any) -> None:
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.serve.model_builder import ModelBuilder
    from support.sagemaker_service import BUCKET, IMAGE

    data = f"s3://{BUCKET}/output/job/output/model.tar.gz"
    builder = ModelBuilder(
        image_uri=IMAGE, s3_model_data_url=data, role_arn=aws.role, sagemaker_session=Session(), env_vars={"A": "b"}
    )
    builder.build(model_name="student")
    builder.deploy(endpoint_name="student", instance_type=INSTANCE, initial_instance_count=1, wait=False)
    container = aws.of("CreateModel")["PrimaryContainer"]
    assert container["Image"] == IMAGE
    assert container["ModelDataUrl"] == data
    (variant,) = aws.of("CreateEndpointConfig")["ProductionVariants"]
    assert variant["InstanceType"] == INSTANCE
    assert aws.of("CreateEndpoint")["EndpointName"] == "student"


def test_the_resources_of_an_endpoint_are_accepted_one_by_one(aws: Any) -> None:
    from sagemaker.core.resources import Endpoint, EndpointConfig, Model
    from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
    from support.sagemaker_service import BUCKET, IMAGE

    container = ContainerDefinition(image=IMAGE, model_data_url=f"s3://{BUCKET}/model.tar.gz")
    Model.create(model_name="student", primary_container=container, execution_role_arn=aws.role)
    variant = ProductionVariant(
        variant_name="AllTraffic", model_name="student", instance_type=INSTANCE, initial_instance_count=1
    )
    EndpointConfig.create(endpoint_config_name="student", production_variants=[variant])
    endpoint = Endpoint.create(endpoint_name="student", endpoint_config_name="student")
    assert endpoint.endpoint_status == "InService"
