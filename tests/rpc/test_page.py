import pytest

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.rpc.codec_values import Wrong
from headrace_server.rpc.page import Page, decode_page, encode_page_token


def test_a_page_begins_at_the_begin_when_there_is_no_token() -> None:
    wrong: Wrong = []
    assert decode_page(pb.ListProvidersRequest(), (int, str), wrong) == Page(100, ())
    assert decode_page(pb.ListProvidersRequest(page_size=5), (int, str), wrong, default=7) == Page(5, ())
    assert not wrong


def test_a_token_leads_back_to_its_position() -> None:
    wrong: Wrong = []
    request = pb.ListQuotasRequest(provider="claude")
    request.page_token = encode_page_token(request, ("claude", "m", 3))
    assert decode_page(request, (str, str, int), wrong) == Page(100, ("claude", "m", 3))
    assert not wrong


@pytest.mark.parametrize("size", [-1, 1_001, -(2**31)])
def test_a_page_size_out_of_range_is_found_wrong(size: int) -> None:
    wrong: Wrong = []
    decode_page(pb.ListProvidersRequest(page_size=size), (int, str), wrong)
    assert [at for at, _ in wrong] == [("page_size",)]


def test_a_token_of_another_list_is_found_wrong() -> None:
    wrong: Wrong = []
    token = encode_page_token(pb.ListQuotasRequest(), ("claude", "m", 3))
    decode_page(pb.ListProvidersRequest(page_token=token), (int, str), wrong)
    assert [at for at, _ in wrong] == [("page_token",)]
