"""A provider that is not one: a real HTTP server for tests, demos and load, which answers in every dialect and fails as it is told to.

Without a script it answers any model, streamed or whole, with tokens that echo the prompt, and with usage:

    POST …/chat/completions                      OpenAI chat completions
    POST …/responses                             OpenAI Responses
    POST …/messages                              Anthropic Messages
    POST …/models/MODEL:generateContent          Gemini, a whole answer
    POST …/models/MODEL:streamGenerateContent    Gemini, a stream (server-sent events with ?alt=sse, else a JSON array)
    GET  /fake/stats                             what was asked, and how each call ended

A model named `…n64-d20` answers 64 tokens, one every 20 ms.

A script is a list of calls (YAML or JSON in a file, `Step` in Python): the first request is answered by the first, and so on; when the list
is used up, the default is back. Each call is an object; everything in it may be left out:

    status, headers    of the answer; 200
    body               the whole body: a string is sent as it is, anything else as JSON
    body_base64        the same for bytes
    events             the events of a stream; a string is sent as it is with a blank line behind it, an object is sent as `data:`, with
                       its `type` as the event's name in Anthropic's and the Responses' dialects; [DONE] is not added
    text, finish       an answer in the dialect of the request with this text, ended by this word of the dialect (`stop`, `end_turn`, …)
    large              how many bytes too large the answer is: {event, header, gzip, message}. An `event` of so many bytes before all
                       others, a `header` of so many, a body that is so many bytes once it is unpacked, an error's `message` of so many
    delay_ms           the wait before the answer's first byte
    pace_ms            the wait between two pieces of the body
    split              how many bytes a piece of the body has: a number, or a list that is gone through again and again (default: an event)
    framing            `chunked`, `content-length` or `close` (the end of the connection ends the body)
    fault              how the answer breaks off: {kind, before_headers, after_events, after_bytes, every_ms, drip}. `cut` closes the
                       connection, `reset` resets it, `stall` says nothing more, `drip` repeats a comment until the caller leaves
    hang_up            after a complete answer, `idle` closes the connection that was to be kept, `reuse` closes it when the next
                       request comes over it, unanswered and unrecorded
    times              how often this call is played; 0: for ever

    - {status: 529, body: {type: error, error: {type: overloaded_error, message: Overloaded}}}
    - {text: one two three, fault: {kind: reset, after_events: 4}}

A script may also be an object (`Script` in Python) with several providers, each under a path prefix of its own, `/NAME`, with its own list
of calls; nobody answers outside of the prefixes. The first provider is the one to be asked, the others stand in for it, in order. So the
script tells everything about a service in front of them, which `recipe` writes down (`headrace fake-provider` prints it):

    about              what it shows, in one line
    providers          by name: {dialect, calls, settings}; `settings` are further lines of its table in the service's configuration,
                       such as `timeout_ms`; one that is `self_signed: true` speaks TLS, with a certificate that nobody vouches for.
                       The first is asked up to three times, the others once
    settings           further settings of the service, such as `progress_timeout`
    request            fields of the GenerateRequest in its JSON form, in place of those it would have
    rpc                `StreamGenerate` or `Generate`; the former

    about: the provider fails three times, the fallback answers
    providers:
      p:
        dialect: openai
        calls:
          - {status: 500, times: 3}
      f: {dialect: openai}

The folder `scripts` holds one for each row of the fault matrix (docs/faults.md) that a provider's behaviour can cause:
`headrace fake-provider --list` names them, `--script F02` plays one.

In a test:

    async with FakeProvider([Step(status=500), Step(text="hello")]) as provider:
        ...                                     # send requests to provider.api_url("openai")
        first = provider.requests[0]            # headers, body, how the connection fared
        await first.ended.wait()
        assert first.fate == Fate.CALLER_LEFT
"""

from headrace_server.fake_provider.script import Break, Script, Step, find_script, load_ready, load_script, ready_scripts
from headrace_server.fake_provider.server import FakeProvider, Fate, Recorded

__all__ = ["Break", "FakeProvider", "Fate", "Recorded", "Script", "Step", "find_script", "load_ready", "load_script", "ready_scripts"]
