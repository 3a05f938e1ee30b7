//! The steps of tests/clients/README.md, each named as there. Without the service they are ignored.

mod support;
mod vectors;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use headrace::v1::generation_event::Event;
use headrace::v1::stream_chunk::Delta;
use headrace::v1::stream_generate_request::Command;
use headrace::v1::{
    AttachGenerationRequest, CancelCommand, CancelRequestRequest, ChatMessage, ContentPart, DisconnectPolicy, ErrorCode, FinishReason,
    GenerationEvent, MessageRole, RequestState, StreamChunk, StreamGenerateRequest, StreamGenerateResponse, SubmitGenerationRequest, Tool,
    ToolCall, ToolResult, Usage, UsageSource, WatchRequestRequest, content_part,
};
use headrace::{Client, Error};
use support::{
    ECHOED, Step, check_cancelled, check_ends, check_slow, check_transitions, collect, connect, request_to, slow_text, text_of, variable,
    within_20s,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// The events of a stream of the stubs.
fn events(messages: impl Stream<Item = Result<StreamGenerateResponse, Status>>) -> impl Stream<Item = Result<GenerationEvent, Status>> {
    futures_util::StreamExt::flat_map(messages, |message| {
        let events = match message {
            Ok(message) => message.events.into_iter().map(Ok).collect(),
            Err(status) => vec![Err(status)],
        };
        tokio_stream::iter(events)
    })
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn wrong_ids_fail_with_the_error_of_the_service_and_others_go_on() {
    let (mut one, mut good, mut other) = (request_to("echo"), request_to("echo"), request_to("echo"));
    let id = good.request_id.clone();
    good.request_id = id.to_uppercase();
    (one.request_id, other.request_id, other.temperature) = ("Mine".into(), "Mine too".into(), Some(3.0));
    let client = connect().await;
    let (mut text, mut refused) = (String::new(), Vec::new());
    let mut events = client.events([one, good, other]);
    while let Some(event) = events.next().await {
        match event {
            Ok(GenerationEvent { request_id, event: Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(piece)), .. })) }) => {
                assert_eq!(request_id, id);
                text += &piece;
            }
            Ok(_) => {}
            Err(error) => {
                assert!(error.status.is_none(), "{error}");
                let fields: Vec<_> = error.detail.field_violations.iter().map(|violation| violation.field.clone()).collect();
                refused.push((error.detail.request_id, fields.join(" ")));
            }
        }
    }
    assert_eq!(text, ECHOED);
    refused.sort();
    assert_eq!(refused, [("Mine", "request_id"), ("Mine too", "request_id temperature")].map(|(id, fields)| (id.into(), fields.into())));
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn unary() -> Result<(), Error> {
    let step = Step::new("unary");
    let request = request_to("echo");
    let response = connect().await.generation().generate(within_20s(request.clone())).await?;
    assert_eq!(response.metadata().get("x-request-id").expect("x-request-id"), request.request_id.as_str());
    let response = response.into_inner();
    assert_eq!(response.request_id, request.request_id);
    let result = response.result.expect("a result");
    assert_eq!(text_of(&result.content), ECHOED);
    assert_eq!(result.finish_reason(), FinishReason::Stop);
    assert_eq!(result.provider, "echo");
    let usage = Usage { input_tokens: 3, output_tokens: 17, total_tokens: 20, source: UsageSource::Provider.into(), ..Default::default() };
    assert_eq!(result.usage, Some(usage));
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn stream() -> Result<(), Error> {
    let step = Step::new("stream");
    let client = connect().await;
    let commands = tokio_stream::iter([StreamGenerateRequest { command: Some(Command::Generate(request_to("slow"))) }]);
    let response = client.generation().stream_generate(within_20s(commands)).await?;
    check_slow(collect(Box::pin(events(response.into_inner()))).await?);

    check_slow(collect(client.events([request_to("slow")])).await?);
    let (mut text, mut pieces) = (String::new(), client.text(request_to("echo")));
    while let Some(piece) = pieces.next().await {
        text += &piece?;
    }
    assert_eq!(text, ECHOED);
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn tool_call() -> Result<(), Error> {
    let step = Step::new("tool_call");
    let client = connect().await;
    let mut request = request_to("tool");
    request.tools = vec![Tool {
        name: "get_weather".into(),
        description: "The weather in a city.".into(),
        parameters_json: r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#.into(),
        ..Default::default()
    }];
    let seen = collect(client.events([request.clone()])).await?;
    let mut call = ToolCall::default();
    for delta in seen.chunks.into_iter().filter_map(|chunk| chunk.delta) {
        let Delta::ToolCall(delta) = delta else { panic!("no piece of a call: {delta:?}") };
        assert_eq!(delta.position, 0);
        call.id += &delta.id;
        call.name += &delta.name;
        call.arguments_json += &delta.arguments_delta;
    }
    let arguments_json = r#"{"city":"Paris"}"#.into();
    let expected = ToolCall { id: "call_weather_1".into(), name: "get_weather".into(), arguments_json, ..Default::default() };
    assert_eq!(call, expected);
    let result = seen.result.expect("completed");
    assert_eq!(result.finish_reason(), FinishReason::ToolCalls);
    assert_eq!(result.content, [ContentPart { part: Some(content_part::Part::ToolCall(expected)) }]);

    let sunny = ContentPart { part: Some(content_part::Part::Text("sunny".into())) };
    let answer = ToolResult { tool_call_id: "call_weather_1".into(), content: vec![sunny], ..Default::default() };
    let answer = ContentPart { part: Some(content_part::Part::ToolResult(answer)) };
    let mut next = request_to("echo");
    next.tools = request.tools;
    next.messages.push(ChatMessage { role: MessageRole::Assistant.into(), content: result.content });
    next.messages.push(ChatMessage { role: MessageRole::Tool.into(), content: vec![answer] });
    let response = client.generation().generate(within_20s(next)).await?.into_inner();
    let content = response.result.expect("a result").content;
    assert!(text_of(&content).starts_with("You said: sunny "), "{content:?}");
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn two_on_one_stream() -> Result<(), Error> {
    let step = Step::new("two_on_one_stream");
    let (slow, echo) = (request_to("slow"), request_to("echo"));
    let ids = [echo.request_id.clone(), slow.request_id.clone()];
    let mut events = connect().await.events([slow, echo]);
    let (mut texts, mut ended) = (HashMap::new(), Vec::new());
    while let Some(GenerationEvent { request_id, event }) = events.next().await.transpose()? {
        match event {
            Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(text)), .. })) => {
                assert!(!ended.contains(&request_id), "a chunk came after completed");
                *texts.entry(request_id).or_insert_with(String::new) += &text;
            }
            Some(Event::Completed(result)) => {
                assert_eq!(text_of(&result.content), texts[&request_id]);
                ended.push(request_id);
            }
            _ => {}
        }
    }
    assert_eq!(ended, ids, "echo ends before slow");
    assert_eq!(ids.map(|id| texts[&id].clone()), [ECHOED.into(), slow_text()]);
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn cancel() -> Result<(), Error> {
    let step = Step::new("cancel");
    let client = connect().await;
    let request = request_to("slow");
    let id = &request.request_id;
    let (commands, outgoing) = tokio::sync::mpsc::unbounded_channel();
    let send = |command| commands.send(StreamGenerateRequest { command: Some(command) }).expect("a stream");
    send(Command::Generate(request.clone()));
    let response = client.generation().stream_generate(within_20s(UnboundedReceiverStream::new(outgoing))).await?;
    let mut events = Box::pin(events(response.into_inner()));
    while !matches!(events.next().await.expect("a chunk")?.event, Some(Event::Chunk(_))) {}
    send(Command::Cancel(CancelCommand { request_id: id.clone() }));
    drop(commands);
    let mut last = None;
    let status = loop {
        match events.next().await.expect("the status") {
            Ok(event) => last = event.event,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Cancelled);
    let Some(Event::Failed(failed)) = last else { panic!("the last event is {last:?}") };
    check_cancelled(&client, id, &failed).await;

    let request = request_to("slow");
    let asked = CancelRequestRequest { request_id: request.request_id.clone() };
    let mut events = client.events([request]);
    let mut is_asked = false;
    let error = loop {
        match events.next().await.expect("an error at the end") {
            Ok(event) if !is_asked && matches!(event.event, Some(Event::Chunk(_))) => {
                client.request().cancel_request(within_20s(asked.clone())).await?;
                is_asked = true;
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    check_cancelled(&client, &asked.request_id, &error.detail).await;

    let request = request_to("slow");
    let request_id = request.request_id.clone();
    let mut text = client.text(request);
    text.next().await.expect("a piece")?;
    drop(text);
    check_ends(&client, &request_id, ErrorCode::Cancelled).await;
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn deadline() -> Result<(), Error> {
    let step = Step::new("deadline");
    let client = connect().await;
    let stuck = request_to("stuck");
    let mut request = Request::new(stuck.clone());
    request.set_timeout(Duration::from_millis(300));
    let begin = Instant::now();
    let status = client.generation().generate(request).await.expect_err("no answer");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(Error::from(status).code, ErrorCode::Timeout);
    check_ends(&client, &stuck.request_id, ErrorCode::Timeout).await;
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn resume() -> Result<(), Error> {
    let step = Step::new("resume");
    let proxy: SocketAddr = variable("HEADRACE_PROXY").parse().expect("an address");
    let connections = Arc::new(AtomicU32::new(0));
    let counted = connections.clone();
    let connector = tower::service_fn(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { tokio::net::TcpStream::connect(proxy).await.map(hyper_util::rt::TokioIo::new) }
    });
    let client = Client::new(Endpoint::from_static("http://proxy").connect_with_connector_lazy(connector));
    let mut request = request_to("slow");
    request.set_on_disconnect(DisconnectPolicy::Keep);
    check_slow(collect(client.events([request])).await?);
    assert!(connections.load(Ordering::Relaxed) >= 3, "it was not resumed twice");

    let mut request = request_to("slow");
    request.set_on_disconnect(DisconnectPolicy::Cancel);
    let error = collect(client.events([request])).await.err().expect("an error, where it ends with the connection");
    assert_eq!(error.code, ErrorCode::Cancelled);
    step.passed();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn rate_limit() {
    let step = Step::new("rate_limit");
    let status = connect().await.generation().generate(within_20s(request_to("limited"))).await.expect_err("the limit");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("RATE_LIMIT_EXCEEDED", "headrace.dev"));
    let delay = details.retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!((7.0..=8.4).contains(&delay.as_secs_f64()), "{delay:?}");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").expect("the pushback"), "-1");
    let error = Error::from(status);
    assert_eq!((error.code, error.retry_after), (ErrorCode::RateLimitExceeded, Some(delay)));
    assert_eq!(error.detail.http_status, 429);
    step.passed();
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn invalid() {
    let step = Step::new("invalid");
    let mut request = request_to("echo");
    request.temperature = Some(3.0);
    request.messages[0].content = vec![ContentPart { part: None }];
    let status = connect().await.generation().generate(within_20s(request)).await.expect_err("a refusal");
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut fields: Vec<_> = Error::from(status).detail.field_violations.into_iter().map(|violation| violation.field).collect();
    fields.sort();
    assert_eq!(fields, ["messages[0].content[0]", "temperature"]);
    step.passed();
}

#[tokio::test]
#[ignore = "needs the service: make test-clients"]
async fn watch() -> Result<(), Error> {
    let step = Step::new("watch");
    let client = connect().await;
    let request = request_to("slow");
    let request_id = request.request_id.clone();
    let submitted =
        client.generation().submit_generation(within_20s(SubmitGenerationRequest { request: Some(request) })).await?.into_inner();
    assert_eq!(submitted.request_id, request_id);
    assert!(!matches!(submitted.state(), RequestState::Completed | RequestState::Failed), "{:?}", submitted.state());

    let watch = WatchRequestRequest { request_id: request_id.clone() };
    let mut watching = client.request().watch_request(within_20s(watch)).await?.into_inner();
    let mut transitions = Vec::new();
    while let Some(response) = watching.message().await? {
        transitions.push(response.transition.expect("a transition"));
    }
    check_transitions(&transitions);
    let times: Vec<_> =
        transitions.iter().map(|transition| SystemTime::try_from(transition.time.expect("a time")).expect("a time")).collect();
    assert!(times[3].duration_since(times[0]).expect("in order") > Duration::from_secs(1));

    let attach = AttachGenerationRequest { request_id, next_index: 60 };
    let mut attached = client.generation().attach_generation(within_20s(attach)).await?.into_inner();
    let (mut indexes, mut is_completed) = (Vec::new(), false);
    while let Some(response) = attached.message().await? {
        for event in response.events {
            match event.event {
                Some(Event::Chunk(chunk)) => indexes.push(chunk.index),
                last => is_completed = matches!(last, Some(Event::Completed(_))),
            }
        }
    }
    assert!(!indexes.is_empty() && indexes.iter().copied().eq(60..60 + indexes.len() as i32), "{indexes:?}");
    assert!(is_completed);
    step.passed();
    Ok(())
}

#[test]
#[ignore = "needs the service: make test-clients"]
fn vectors() {
    let step = Step::new("vectors");
    vectors::check(&PathBuf::from(variable("HEADRACE_VECTORS")));
    step.passed();
}
