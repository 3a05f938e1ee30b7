"""The real small model, started once for all tests that want it."""

import os
from collections.abc import Iterator

import pytest

from headrace_server.local_model import LocalModel, ModelUnavailable, folder


@pytest.fixture(scope="session")
def local_model() -> Iterator[LocalModel]:
    """The model's server. Where its wheels are not installed the test is skipped, with the reason; with CI=true it fails."""
    try:
        if not folder().is_dir():
            raise ModelUnavailable("the model is not installed: `make test` does so, where there are wheels for this machine")
        with LocalModel(folder()) as model:
            yield model
    except ModelUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
