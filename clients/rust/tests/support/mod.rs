//! What the steps of the scenario share: requests, what is read of a stream, and what must be seen.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use headrace::v1::generation_event::Event;
use headrace::v1::stream_chunk::Delta;
use headrace::v1::{
    ContentPart, ErrorCode, FallbackConfig, FinishReason, GenerateRequest, GenerationEvent, GenerationResult, GetRequestRequest,
    ProviderError, RequestRecord, RequestState, StateTransition, StreamChunk, content_part,
};
use headrace::{Client, Error};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Status};
use uuid::Uuid;

pub const ECHOED: &str = "You said: one two three This answer comes from the fake provider, one word at a time.";

pub fn slow_text() -> String {
    (0..64).map(|i| format!(" tok{i}")).collect()
}

/// Appends a line for the step to the results when it is dropped: one that is dropped by a panic or an error has not passed.
pub struct Step {
    name: &'static str,
    ok: bool,
}

impl Step {
    pub fn new(name: &'static str) -> Self {
        Self { name, ok: false }
    }

    pub fn passed(mut self) {
        self.ok = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(path) = env::var_os("HEADRACE_CLIENT_RESULTS") {
            let line = serde_json::json!({"language": "rust", "step": self.name, "ok": self.ok});
            let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of the results");
            file.write_all(format!("{line}\n").as_bytes()).expect("a line of the results");
        }
    }
}

pub fn variable(name: &str) -> String {
    env::var(name).expect("there is no service: run this by `make test-clients`")
}

pub async fn connect() -> Client {
    Client::connect(format!("http://{}", variable("HEADRACE_TARGET"))).await.expect("a connection")
}

pub fn request_to(provider: &str) -> GenerateRequest {
    GenerateRequest {
        request_id: Uuid::new_v4().to_string(),
        provider: provider.into(),
        fallback: Some(FallbackConfig { enabled: Some(false), ..Default::default() }),
        ..GenerateRequest::from("one two three")
    }
}

const IN_20S: Duration = Duration::from_secs(20);

/// A message with the deadline of 20 seconds.
pub fn within_20s<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(IN_20S);
    request
}

#[derive(Default)]
pub struct Summary {
    pub transitions: Vec<StateTransition>,
    pub chunks: Vec<StreamChunk>,
    pub text: String,
    pub result: Option<GenerationResult>,
}

/// Reads to the end, which has to come within 20 seconds.
pub async fn collect<E: Into<Error>>(events: impl Stream<Item = Result<GenerationEvent, E>>) -> Result<Summary, Error> {
    let (mut seen, end) = (Summary::default(), tokio::time::Instant::now() + IN_20S);
    let mut events = Box::pin(events);
    while let Some(event) = tokio::time::timeout_at(end, events.next()).await.expect("an end within 20 seconds") {
        assert!(seen.result.is_none(), "something came after completed");
        match event.map_err(Into::into)?.event {
            Some(Event::Transition(transition)) => seen.transitions.push(transition),
            Some(Event::Chunk(chunk)) => {
                if let Some(Delta::Text(text)) = &chunk.delta {
                    seen.text += text;
                }
                seen.chunks.push(chunk);
            }
            Some(Event::Completed(result)) => seen.result = Some(result),
            _ => {}
        }
    }
    Ok(seen)
}

pub fn text_of(content: &[ContentPart]) -> &str {
    match content {
        [ContentPart { part: Some(content_part::Part::Text(text)) }] => text,
        _ => panic!("not one text: {content:?}"),
    }
}

pub fn check_slow(seen: Summary) {
    check_transitions(&seen.transitions);
    let (last, others) = seen.chunks.split_last().expect("chunks");
    assert!(seen.chunks.iter().map(|chunk| chunk.index).eq(0..seen.chunks.len() as i32));
    assert!(others.iter().all(|chunk| chunk.finish_reason() == FinishReason::Unspecified));
    assert_eq!(last.finish_reason(), FinishReason::Stop);
    assert_eq!(seen.text, slow_text());
    let result = seen.result.expect("completed");
    assert_eq!(text_of(&result.content), seen.text);
    assert_eq!(result.usage.expect("usage").output_tokens, 64);
}

pub fn check_transitions(seen: &[StateTransition]) {
    use RequestState::{Completed, Idle, Requesting, Streaming, Validating};
    let steps: Vec<_> = seen.iter().map(|transition| (transition.from_state(), transition.to_state())).collect();
    assert_eq!(steps, [(Idle, Validating), (Validating, Requesting), (Requesting, Streaming), (Streaming, Completed)]);
}

pub async fn check_cancelled(client: &Client, id: &str, failed: &ProviderError) {
    assert_eq!(failed.code(), ErrorCode::Cancelled);
    let partial = text_of(&failed.partial.as_ref().expect("a partial answer").content);
    assert!(slow_text().starts_with(partial) && partial.len() < slow_text().len(), "{partial}");
    let record = record_of(client, id).await.expect("the record");
    assert_eq!((record.state(), record.error_code()), (RequestState::Failed, ErrorCode::Cancelled));
}

/// Asks for the record until it shows this failure.
pub async fn check_ends(client: &Client, id: &str, code: ErrorCode) {
    let begin = Instant::now();
    loop {
        let record = record_of(client, id).await.expect("the record");
        if record.state() == RequestState::Failed {
            return assert_eq!(record.error_code(), code);
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "it still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn record_of(client: &Client, id: &str) -> Result<RequestRecord, Status> {
    let response = client.request().get_request(within_20s(GetRequestRequest { request_id: id.into() })).await?;
    response.into_inner().request.ok_or_else(|| Status::not_found("an empty response"))
}
