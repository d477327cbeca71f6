"""The blocks of queues at message brokers: what contradicts itself is refused, what may lose mail is said."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.sinks.kafka import KafkaQueueConfig
from mailpoller.sinks.nats import NatsQueueConfig
from mailpoller.sinks.nats.config import NatsQueueSettings
from mailpoller.sinks.rabbitmq import RabbitmqQueueConfig
from mailpoller.sinks.rabbitmq.config import RabbitmqQueueSettings
from mailpoller.sinks.s3 import S3QueueConfig
from mailpoller.sinks.sns import SnsQueueConfig
from mailpoller.sinks.sqs import SqsQueueConfig


def nats(**more: Any) -> NatsQueueConfig:
    return NatsQueueConfig(
        **{"type": "nats", "host": "nats.example.com", "stream": "MAIL", "subject": "mail.x", **more}
    )


def rabbitmq(**more: Any) -> RabbitmqQueueConfig:
    usual = {"type": "rabbitmq", "host": "r.example.com", "username": "us", "password": "x", "queue": "support"}
    return RabbitmqQueueConfig(**{name: value for name, value in {**usual, **more}.items() if value is not None})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"subject": "mail.*"}, "subject"),
        ({"subject": "mail..x"}, "subject"),
        ({"subject": "mail.{queue}"}, "subject"),
        ({"subject": "mail.x{topic}"}, "subject"),
        ({"subject": "mail.x\r\nPUB y 0"}, "subject"),
        ({"stream": "a.b"}, "stream"),
        ({"stream": "a b"}, "stream"),
        ({"username": "us"}, "go together"),
        ({"token": "t", "username": "us", "password": "p"}, "exclude"),
        ({"token": "t", "nkey": "s"}, "exclude"),
        ({"credentials": "c", "nkey": "s"}, "exclude"),
        ({"monitoring": ["ftp://h"]}, "monitoring"),
        ({"monitoring": ["http://u:p@h:8222"]}, "monitoring"),
        ({"client_key": "/k"}, "client_certificate"),
    ],
)
def test_a_nats_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        nats(**more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"queue": None}, "where to"),
        ({"queue": "Müll"}, "ASCII"),
        ({"queue": "q" * 256}, "name"),
        ({"job": "x"}, "for format: celery"),
        ({"format": "celery"}, "who does the work"),
        ({"format": "celery", "job": "x", "mode": "raw"}, "leave mode away"),
        ({"routing_key": "x"}, "for an exchange"),
        ({"password": None}, "go together"),
        ({"username": None, "password": None}, "log in"),
        ({"vhost": ""}, "name"),
    ],
)
def test_a_rabbitmq_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        rabbitmq(**more)


def test_a_certificate_is_a_login_and_the_port_follows_tls() -> None:
    assert rabbitmq(username=None, password=None, client_certificate="/c").effective_port == 5671
    assert rabbitmq(tls="none").effective_port == 5672
    assert rabbitmq(port=1).effective_port == 1


@pytest.mark.parametrize(
    ("block", "keys"),
    [
        (nats(), set()),
        (nats(durability="declared"), {"durability"}),
        (nats(tls="none"), {"tls"}),
        (nats(tls="none", host="127.0.0.1"), set()),
        (nats(tls="none", host="127.0.0.1", others=["n.example.com"]), {"tls"}),
        (rabbitmq(), set()),
        (rabbitmq(durability="warn", tls="none"), {"durability", "tls"}),
        (rabbitmq(tls="none", host="localhost"), set()),
    ],
)
def test_what_may_lose_mail_or_show_it_is_said(
    block: NatsQueueSettings | RabbitmqQueueSettings, keys: set[str]
) -> None:
    assert {finding.key for finding in block.findings()} == keys


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("nats", "nats"),
        ("rabbitmq", "aiormq"),
        ("kafka", "confluent_kafka"),
        ("sqs", "aiobotocore"),
        ("sns", "aiobotocore"),
        ("s3", "aiobotocore"),
    ],
)
def test_the_library_is_not_imported_before_a_queue_is_built(module: str, library: str) -> None:
    program = f"import sys, mailpoller.sinks.{module}; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_blobs_in_a_bucket_import_no_library_before_the_store_is_built() -> None:
    program = "import sys, mailpoller.blobs.s3; sys.exit('aiobotocore' in sys.modules or 'httpcore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("block", [nats, rabbitmq])
def test_a_queue_that_sends_the_octets_says_so(block: Any) -> None:
    """So that attachments of mailboxes that are not trusted are kept from it."""
    assert block(mode="raw").carries_octets
    assert block(raw=True).carries_octets
    assert not block(mode="binary").carries_octets


def test_large_octets_go_beside_nats_where_there_is_a_place_for_them() -> None:
    """A server takes a mebibyte, of which Base64 is four thirds."""
    assert (nats().blobs_above or 0) * 4 / 3 < 1 << 20
    assert nats(blobs_above=None).blobs_above is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"servers": []}, "servers"),
        ({"servers": ["kafka://h"]}, "host:port"),
        ({"servers": ["h:0"]}, "host:port"),
        ({"topic": "a b"}, "topic"),
        ({"username": "us"}, "go together"),
        ({"client_key": "/k"}, "go together"),
        ({"max_size": "2GB"}, "max_size"),
    ],
)
def test_a_kafka_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KafkaQueueConfig(**{"type": "kafka", "servers": ["k.example.com"], "topic": "mail", **more})


def sqs(**more: Any) -> SqsQueueConfig:
    usual = {"type": "sqs", "queue": _QUEUE, "access_key_id": "AKID", "secret_access_key": "x"}
    return SqsQueueConfig(**{name: value for name, value in {**usual, **more}.items() if value is not None})


_QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/mail"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"queue": "mail"}, "URL"),
        ({"queue": "https://us:pw@sqs.eu-central-1.amazonaws.com/1/mail"}, "endpoint"),
        ({"queue": f"{_QUEUE}?x=1"}, "URL"),
        ({"queue": "https://sqs.example.com/1/mail"}, "region is missing"),
        ({"queue": f"{_QUEUE}.fifo.fifo"}, "URL"),
        ({"queue": "https://sqs.eu-central-1.amazonaws.com/1/" + "m" * 81}, "URL"),
        ({"region": "Frankfurt"}, "region"),
        ({"group": "{uid}"}, "group"),
        ({"group": "a b"}, "group"),
        ({"secret_access_key": None}, "secret_access_key is missing"),
        ({"access_key_id": None, "secret_access_key": None}, "access_key_id is missing"),
        ({"access_key_id": None}, "go with access_key_id"),
        ({"instance_role": True}, "exclude each other"),
        ({"profile": "mail"}, "exclude each other"),
    ],
)
def test_an_sqs_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        sqs(**more)


@pytest.mark.parametrize(
    ("queue", "region", "aws"),
    [
        (_QUEUE, "eu-central-1", True),
        ("https://sqs-fips.us-east-1.amazonaws.com/1/mail", "us-east-1", True),
        ("https://vpce-0a-1b.sqs.us-east-1.vpce.amazonaws.com/1/mail", "us-east-1", True),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/mail.fifo", "cn-north-1", True),
        ("https://sqs.eu-west-1.api.aws/1/mail", "eu-west-1", True),
        ("http://sqs.eu-west-1.amazonaws.com/1/mail", "eu-west-1", False),
        ("https://sqs.eu-west-1.amazonaws.com.example.com/1/mail", "", False),
        ("https://xamazonaws.com/1/mail", "", False),
        ("http://127.0.0.1:9324/000000000000/mail", "", False),
    ],
)
def test_a_queue_of_sqs_says_where_it_is_and_whether_that_is_aws(queue: str, region: str, aws: bool) -> None:
    """Whoever is between could have an answer to http: it is no word of AWS."""
    block = sqs(queue=queue, region=None if region else "eu-central-1")
    assert block.service_region == (region or "eu-central-1")
    assert (block.worth("SQS").finding == "promised") is aws


def test_a_large_event_goes_beside_sqs_and_blobs_stay_as_long_as_it_keeps_events() -> None:
    assert (sqs().blobs_above or 0) * 4 / 3 < 1 << 20
    assert sqs().events_kept().days == 14
    assert {one.key for one in sqs(durability="declared", queue="http://q.example.com/1/m", region="x").findings()} == {
        "durability",
        "queue",
    }


def s3(**more: Any) -> S3QueueConfig:
    usual = {"type": "s3", "bucket": "example-mail", "region": "eu-central-1", "instance_role": True}
    return S3QueueConfig(**{name: value for name, value in {**usual, **more}.items() if value is not None})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"bucket": "Mail"}, "bucket"),
        ({"bucket": "a..b"}, "bucket"),
        ({"bucket": "ab/c"}, "bucket"),
        ({"prefix": "support"}, "slash"),
        ({"prefix": "../support/"}, "no . and .."),
        ({"prefix": "sup port/"}, "slash"),
        ({"prefix": "/"}, "slash"),
        ({"region": None}, "region"),
        ({"endpoint": "https://us:pw@s3.example.com"}, "endpoint"),
        ({"endpoint": "https://s3.example.com/bucket"}, "no path"),
        ({"instance_role": None}, "access_key_id is missing"),
    ],
)
def test_an_s3_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        s3(**more)


@pytest.mark.parametrize(
    ("endpoint", "finding", "style", "keys"),
    [
        (None, "promised", "auto", set()),
        ("https://bucket.vpce-0a-1b.s3.eu-central-1.vpce.amazonaws.com", "promised", "path", set()),
        ("https://s3.example.com", "unknown", "path", set()),
        ("http://s3.example.com", "unknown", "path", {"endpoint"}),
        ("http://127.0.0.1:8333", "unknown", "path", set()),
    ],
)
def test_a_bucket_says_whether_it_is_at_aws(endpoint: str | None, finding: str, style: str, keys: set[str]) -> None:
    block = s3(endpoint=endpoint)
    assert block.worth("S3").finding == finding
    assert block.addressing_style == style
    assert {one.key for one in block.findings()} == keys


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"topic": "mail"}, "ARN"),
        ({"topic": "arn:aws:sqs:eu-central-1:123456789012:mail"}, "ARN"),
        ({"topic": "arn:aws:sns:eu-central-1:123456789012:mail:0a1b"}, "ARN"),
        ({"group": "a b"}, "group"),
        ({"endpoint": "sns.example.com"}, "endpoint"),
    ],
)
def test_an_sns_block_that_cannot_work_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        sns(**more)


def sns(**more: Any) -> SnsQueueConfig:
    usual = {"type": "sns", "topic": "arn:aws:sns:eu-central-1:123456789012:mail", "instance_role": True}
    return SnsQueueConfig(**{**usual, **more})


def test_a_topic_says_whether_it_is_at_aws_and_large_octets_go_beside_it() -> None:
    assert sns().service_region == "eu-central-1"
    assert sns().worth("SNS").finding == "promised"
    assert sns(endpoint="https://sns.example.com").worth("SNS").finding == "unknown"
    assert (sns().blobs_above or 0) * 4 / 3 < 262_144
    assert sns(topic="arn:aws-cn:sns:cn-north-1:123456789012:mail.fifo").fifo
    assert {one.key for one in sns(durability="declared", endpoint="http://q.example.com").findings()} == {
        "durability",
        "endpoint",
    }
