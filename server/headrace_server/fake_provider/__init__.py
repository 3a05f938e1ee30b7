"""A provider that is not one: a real HTTP server for tests, demos and load, which answers in every dialect and fails as it is told to.

Without a script it answers any model, streamed or whole, with tokens that echo the prompt, and with usage:

    POST …/chat/completions                      OpenAI chat completions
    POST …/responses                             OpenAI Responses
    POST …/messages                              Anthropic Messages
    POST …/models/MODEL:generateContent          Gemini, a whole answer
    POST …/models/MODEL:streamGenerateContent    Gemini, a stream (server-sent events with ?alt=sse, else a JSON array)
    GET  /fake/stats                             what was asked, and how each call ended

A model named `…n64-d20` answers 64 tokens, one every 20 ms.

A script is a list of calls (JSON in a file, `Step` in Python): the first request is answered by the first, and so on; when the list is
used up, the default is back. Each call is an object; everything in it may be left out:

    status, headers    of the answer; 200
    body               the whole body: a string is sent as it is, anything else as JSON
    body_base64        the same for bytes
    events             the events of a stream; a string is sent as it is with a blank line behind it, an object is sent as `data:`, with
                       its `type` as the event's name in Anthropic's and the Responses' dialects; [DONE] is not added
    text, finish       an answer in the dialect of the request with this text, ended by this word of the dialect (`stop`, `end_turn`, …)
    delay_ms           the wait before the answer's first byte
    pace_ms            the wait between two pieces of the body
    split              how many bytes a piece of the body has: a number, or a list that is gone through again and again (default: an event)
    framing            `chunked`, `content-length` or `close` (the end of the connection ends the body)
    fault              how the answer breaks off: {kind, before_headers, after_events, after_bytes, every_ms, drip}. `cut` closes the
                       connection, `reset` resets it, `stall` says nothing more, `drip` repeats a comment until the caller leaves
    hang_up            after a complete answer, `idle` closes the connection that was to be kept, `reuse` closes it when the next
                       request comes over it, unanswered and unrecorded
    times              how often this call is played; 0: for ever

    [{"status": 529, "body": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}},
     {"text": "one two three", "fault": {"kind": "reset", "after_events": 4}}]

In a test:

    async with FakeProvider([Step(status=500), Step(text="hello")]) as provider:
        ...                                     # send requests to provider.api_url("openai")
        first = provider.requests[0]            # headers, body, how the connection fared
        await first.ended.wait()
        assert first.fate == Fate.CALLER_LEFT
"""

from headrace_server.fake_provider.script import Break, Step, load_script
from headrace_server.fake_provider.server import FakeProvider, Fate, Recorded

__all__ = ["Break", "FakeProvider", "Fate", "Recorded", "Step", "load_script"]
