//! The helper against a server that plays scripted streams.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headrace::v1::generation_event::Event;
use headrace::v1::generation_service_server::{GenerationService, GenerationServiceServer};
use headrace::v1::stream_chunk::Delta;
use headrace::v1::stream_generate_request::Command;
use headrace::v1::{
    DisconnectPolicy, Discontinuity, ErrorCode, GenerateRequest, GenerationEvent, GenerationResult, ProviderError, RequestState,
    StateTransition, StreamChunk, StreamGenerateRequest, StreamGenerateResponse,
};
use headrace::{Client, Error, Generation};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// What the server does on one stream: it tells events of the generation that the first command is about, and ends.
type Script = (Vec<Event>, End);

#[derive(Clone)]
enum End {
    Ok,
    Lost,
    /// Goes on reading commands, until the client goes away.
    Stays,
}

struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    seen: UnboundedSender<Seen>,
}

/// What the server sees of its client: of every stream the first command, and all that follows on one that stays.
#[derive(Debug, PartialEq)]
enum Seen {
    Command(Box<Command>),
    /// No more commands: the client ended the stream, or is gone.
    HalfClose,
    Gone,
}

#[tonic::async_trait]
impl GenerationService for Scripted {
    async fn stream_generate(
        &self,
        request: Request<Streaming<StreamGenerateRequest>>,
    ) -> Result<Response<BoxStream<StreamGenerateResponse>>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.command).expect("a command");
        let request_id = id_of(&first);
        let _ = self.seen.send(Seen::Command(Box::new(first)));
        let (events, end) = self.scripts.lock().unwrap().pop_front().expect("no more streams");
        let messages: Vec<_> = events
            .into_iter()
            .map(|event| {
                Ok(StreamGenerateResponse { events: vec![GenerationEvent { request_id: request_id.clone(), event: Some(event) }] })
            })
            .collect();
        let messages = tokio_stream::iter(messages);
        Ok(Response::new(match end {
            End::Ok => Box::pin(messages),
            End::Lost => Box::pin(messages.chain(tokio_stream::once(Err(Status::unavailable("gone"))))),
            End::Stays => {
                let seen = self.seen.clone();
                tokio::spawn(async move {
                    while let Ok(Some(request)) = requests.message().await {
                        let _ = seen.send(Seen::Command(Box::new(request.command.expect("a command"))));
                    }
                    let _ = seen.send(Seen::HalfClose);
                });
                let gone = SaysGone(self.seen.clone());
                Box::pin(messages.chain(tokio_stream::pending()).map(move |message| {
                    let _gone = &gone;
                    message
                }))
            }
        }))
    }
}

struct SaysGone(UnboundedSender<Seen>);

impl Drop for SaysGone {
    fn drop(&mut self) {
        let _ = self.0.send(Seen::Gone);
    }
}

fn id_of(command: &Command) -> String {
    match command {
        Command::Generate(request) => request.request_id.clone(),
        Command::Resume(resume) => resume.request_id.clone(),
        Command::Cancel(cancel) => cancel.request_id.clone(),
    }
}

/// Starts the server; gives a client of it, and what it sees.
async fn serve(scripts: impl Into<VecDeque<Script>>) -> (Client, Sight) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (seen, sight) = unbounded_channel();
    let service = GenerationServiceServer::new(Scripted { scripts: Mutex::new(scripts.into()), seen });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (Client::connect(uri).await.unwrap(), Sight(sight))
}

struct Sight(UnboundedReceiver<Seen>);

impl Sight {
    async fn next(&mut self) -> Seen {
        tokio::time::timeout(Duration::from_secs(10), self.0.recv()).await.expect("nothing comes").expect("the server")
    }

    async fn command(&mut self) -> Command {
        match self.next().await {
            Seen::Command(command) => *command,
            other => panic!("no command: {other:?}"),
        }
    }
}

fn transition(state: RequestState) -> Event {
    Event::Transition(StateTransition { to_state: state.into(), ..Default::default() })
}

fn chunk(index: i32, text: &str) -> Event {
    Event::Chunk(StreamChunk { index, delta: Some(Delta::Text(text.into())), ..Default::default() })
}

fn completed() -> Event {
    Event::Completed(GenerationResult::default())
}

fn kept() -> GenerateRequest {
    GenerateRequest { on_disconnect: DisconnectPolicy::Keep.into(), ..GenerateRequest::from("Hello") }
}

/// What a generation told, in words, and how it ended.
async fn told(mut generation: Generation) -> (String, Option<Error>) {
    let mut words = Vec::new();
    while let Some(event) = generation.next().await {
        match event.map(|event| event.event) {
            Ok(Some(Event::Transition(transition))) => words.push(transition.to_state().as_str_name().replace("REQUEST_STATE_", "")),
            Ok(Some(Event::Chunk(StreamChunk { delta: Some(Delta::Text(text)), .. }))) => words.push(text),
            Ok(Some(Event::Completed(_))) => words.push("completed".into()),
            Ok(other) => words.push(format!("{other:?}")),
            Err(error) => return (words.join(" "), Some(error)),
        }
    }
    (words.join(" "), None)
}

#[tokio::test]
async fn nothing_is_told_twice_when_streams_are_lost() {
    let (validating, streaming) = (transition(RequestState::Validating), transition(RequestState::Streaming));
    let (client, mut sight) = serve([
        (vec![validating.clone()], End::Lost),
        (vec![validating, streaming, chunk(0, "a"), chunk(1, "b")], End::Lost),
        (vec![chunk(2, "c"), completed()], End::Ok),
    ])
    .await;
    let (words, error) = told(client.stream(kept())).await;
    assert_eq!(words, "VALIDATING STREAMING a b c completed");
    assert!(error.is_none());
    let (first, second, third) = (sight.command().await, sight.command().await, sight.command().await);
    assert!(matches!(&first, Command::Generate(request) if !request.request_id.is_empty()));
    assert_eq!(first, second, "before the first chunk the same request is sent again");
    assert!(matches!(third, Command::Resume(resume) if resume.next_index == 2));
}

#[tokio::test]
async fn a_lost_stream_is_an_error_when_the_generation_ends_with_it() {
    let (client, _) = serve([(vec![chunk(0, "a")], End::Lost)]).await;
    let (words, error) = told(client.stream("Hello")).await;
    let error = error.expect("an error");
    assert_eq!((words.as_str(), error.code), ("a", ErrorCode::NetworkError));
    assert_eq!(error.status.map(|status| status.code()), Some(Code::Unavailable));
}

#[tokio::test]
async fn a_stream_without_an_end_is_an_error_when_the_status_is_ok() {
    let (client, _) = serve([(vec![chunk(0, "a")], End::Ok)]).await;
    let (words, error) = told(client.stream("Hello")).await;
    assert_eq!((words.as_str(), error.map(|error| error.code)), ("a", Some(ErrorCode::NetworkError)));
}

#[tokio::test]
async fn one_generation_fails_and_the_next_one_starts_when_a_stream_goes_on() {
    let failed =
        ProviderError { code: ErrorCode::ServerError.into(), subreason: "OVERLOADED".into(), message: "no".into(), ..Default::default() };
    let (client, mut sight) = serve([(vec![Event::Failed(failed)], End::Stays)]).await;
    let session = client.session();
    let (_, error) = told(session.start(kept())).await;
    assert_eq!(error.expect("an error").to_string(), "SERVER_ERROR/OVERLOADED: no");
    let next = session.start("and now?");
    sight.command().await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request == next.request));
}

#[tokio::test]
async fn the_server_learns_of_it_when_a_generation_is_dropped() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays)]).await;
    let session = client.session();
    let mut text = session.start("Hello").text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    let first = sight.command().await;
    drop(text);
    assert!(matches!(sight.command().await, Command::Cancel(cancel) if cancel.request_id == id_of(&first)));
}

#[tokio::test]
async fn the_stream_ends_when_its_only_generation_is_dropped() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays)]).await;
    let mut text = client.stream(kept()).text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    drop(text);
    sight.command().await;
    let mut seen = sight.next().await;
    if seen == Seen::HalfClose {
        seen = sight.next().await; // the server may see both, in either order
    }
    assert_eq!(seen, Seen::Gone, "kept, it is not cancelled");
}

#[tokio::test]
async fn the_other_generation_goes_on_when_its_id_is_started_again() {
    let (client, mut sight) = serve([(vec![chunk(0, "a"), completed()], End::Stays)]).await;
    let session = client.session();
    let first = session.start(kept());
    let (_, error) = told(session.start(first.request.clone())).await;
    assert_eq!(error.map(|error| error.code), Some(ErrorCode::InvalidRequest));
    assert_eq!(told(first).await.0, "a completed");
    drop(session);
    sight.command().await;
    assert_eq!(sight.next().await, Seen::HalfClose, "nothing else is sent, and the stream ends in good order");
}

#[tokio::test]
async fn the_deadline_ends_reconnecting_when_nobody_listens() {
    let client = Client::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let (_, error) = told(client.session_with_timeout(Duration::from_millis(120)).start(kept())).await;
    assert_eq!(error.map(|error| error.code), Some(ErrorCode::Timeout));
}

#[tokio::test]
async fn connecting_is_an_error_when_nobody_listens_or_the_address_is_none() {
    assert_eq!(Client::connect("http://127.0.0.1:1").await.expect_err("nobody").code, ErrorCode::NetworkError);
    assert_eq!(Client::connect("::").await.expect_err("no address").code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_missing_chunk_is_an_error() {
    let (client, _) = serve([(vec![chunk(0, "a"), chunk(2, "c"), completed()], End::Ok)]).await;
    let (words, error) = told(client.stream("Hello")).await;
    assert_eq!(words, "a");
    assert!(error.expect("an error").message.contains("chunk 2"));
}

#[tokio::test]
async fn text_is_an_error_when_the_answer_starts_again() {
    let again = Event::Discontinuity(Discontinuity::default());
    let (client, _) = serve([(vec![chunk(0, "a"), again, chunk(1, "A"), completed()], End::Ok)]).await;
    let mut text = client.stream("Hello").text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    assert!(text.next().await.expect("an error").is_err());
    assert!(text.next().await.is_none());
}

#[tokio::test]
async fn rpcs_carry_the_token_when_there_is_one() {
    let token = Arc::new(Mutex::new(None));
    let kept = token.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let service = Scripted { scripts: Mutex::default(), seen: unbounded_channel().0 };
    let service = GenerationServiceServer::with_interceptor(service, move |request: Request<()>| {
        *kept.lock().unwrap() = request.metadata().get("authorization").cloned();
        Ok(request)
    });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let client = Client::connect(uri).await.unwrap();
    assert!(client.clone().with_token("a\nb").is_err());
    let status = client.with_token("secret").unwrap().generation().generate(GenerateRequest::from("Hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(token.lock().unwrap().as_ref().unwrap(), "Bearer secret");
}
