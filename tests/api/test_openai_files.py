"""The `openai` SDK, unchanged, against the files of a real server."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tenants.credentials import NewSite
from tests.api.forms import LINE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sdk(url: str, bakery: NewSite) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=bakery.api_key.secret, max_retries=0) as client:
        yield client


def test_the_sdk_uploads_reads_and_deletes_a_file(sdk: openai.OpenAI, tmp_path: Path) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_bytes(LINE * 20_000)

    made = sdk.files.create(file=requests, purpose="batch", expires_after={"anchor": "created_at", "seconds": 86_400})
    other = sdk.files.create(file=LINE, purpose="batch")
    listed = [file.id for file in sdk.files.list(purpose="batch", limit=1, order="asc")]
    with sdk.files.with_streaming_response.content(made.id) as answer:
        read = b"".join(answer.iter_bytes())
    deleted = sdk.files.delete(made.id)

    assert (made.object, made.filename, made.bytes, made.purpose) == ("file", "requests.jsonl", len(read), "batch")
    assert (made.expires_at or 0) - made.created_at == 86_400
    assert listed == [made.id, other.id]
    assert read == requests.read_bytes()
    assert sdk.files.content(other.id).content == LINE
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(made.id)


def test_a_rejection_is_an_exception_of_the_sdk(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.files.create(file=LINE, purpose="fine-tune")

    assert (caught.value.param, caught.value.code) == ("purpose", "invalid_value")
