//! The helper against a server that plays scripted streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headrace::v1::generation_event::Event;
use headrace::v1::generation_service_server::{GenerationService, GenerationServiceServer};
use headrace::v1::request_service_server::{RequestService, RequestServiceServer};
use headrace::v1::stream_chunk::Delta;
use headrace::v1::stream_generate_request::Command;
use headrace::v1::{
    CancelRequestRequest, CancelRequestResponse, DisconnectPolicy, Discontinuity, ErrorCode, GenerateRequest, GenerationEvent,
    GenerationResult, ProviderError, RequestState, StateTransition, StreamChunk, StreamGenerateRequest, StreamGenerateResponse,
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
    /// CancelRequest, for this id.
    Cancel(String),
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
                Box::pin(messages.chain(tokio_stream::pending()))
            }
        }))
    }
}

/// Answers the first CancelRequest that it does not know the request.
struct Cancels {
    seen: UnboundedSender<Seen>,
    is_first: AtomicBool,
}

#[tonic::async_trait]
impl RequestService for Cancels {
    async fn cancel_request(&self, request: Request<CancelRequestRequest>) -> Result<Response<CancelRequestResponse>, Status> {
        let _ = self.seen.send(Seen::Cancel(request.into_inner().request_id));
        if self.is_first.swap(false, Ordering::Relaxed) {
            Err(Status::not_found("not yet"))
        } else {
            Ok(Response::new(CancelRequestResponse::default()))
        }
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
    let cancels = RequestServiceServer::new(Cancels { seen: seen.clone(), is_first: true.into() });
    let generations = GenerationServiceServer::new(Scripted { scripts: Mutex::new(scripts.into()), seen });
    let server = Server::builder().add_service(generations).add_service(cancels);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
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

fn with_policy(policy: DisconnectPolicy) -> GenerateRequest {
    GenerateRequest { on_disconnect: policy.into(), ..GenerateRequest::from("Hello") }
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
    let (words, error) = told(client.stream("Hello")).await;
    assert_eq!(words, "VALIDATING STREAMING a b c completed");
    assert!(error.is_none());
    let (first, second, third) = (sight.command().await, sight.command().await, sight.command().await);
    assert!(matches!(&first, Command::Generate(request) if !request.request_id.is_empty()));
    assert_eq!(first, second, "before the first chunk the same request is sent again");
    assert!(matches!(third, Command::Resume(resume) if resume.next_index == 2));
}

#[tokio::test]
async fn a_request_is_sent_as_keep_when_nothing_is_said() {
    let end = || (vec![completed()], End::Ok);
    let (client, mut sight) = serve([end(), end()]).await;
    told(client.stream("Hello")).await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request.on_disconnect() == DisconnectPolicy::Keep));
    told(client.stream(with_policy(DisconnectPolicy::Drain))).await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request.on_disconnect() == DisconnectPolicy::Drain));
}

#[tokio::test]
async fn a_lost_stream_is_an_error_when_the_generation_ends_with_it() {
    let (client, _) = serve([(vec![chunk(0, "a")], End::Lost)]).await;
    let (words, error) = told(client.stream(with_policy(DisconnectPolicy::Cancel))).await;
    let error = error.expect("an error");
    assert_eq!((words.as_str(), error.code), ("a", ErrorCode::NetworkError));
    assert_eq!(error.status.map(|status| (status.code(), status.message().to_owned())), Some((Code::Unavailable, "gone".into())));
}

#[tokio::test]
async fn a_stream_without_an_end_is_an_error_when_the_status_is_ok() {
    let (client, _) = serve([(vec![chunk(0, "a")], End::Ok)]).await;
    let (words, error) = told(client.stream(with_policy(DisconnectPolicy::Cancel))).await;
    assert_eq!((words.as_str(), error.map(|error| error.code)), ("a", Some(ErrorCode::NetworkError)));
}

#[tokio::test]
async fn every_generation_goes_on_when_the_stream_of_a_session_is_lost() {
    let (client, mut sight) =
        serve([(vec![chunk(0, "a")], End::Lost), (vec![chunk(1, "b"), completed()], End::Ok), (vec![completed()], End::Ok)]).await;
    let session = client.session();
    assert_eq!(told(session.start("Hello")).await.0, "a b completed");
    assert_eq!(told(session.start("and now?")).await.0, "completed");
    sight.command().await;
    assert!(matches!(sight.command().await, Command::Resume(resume) if resume.next_index == 1));
    assert!(matches!(sight.command().await, Command::Generate(_)), "one that starts later has a stream of its own");
}

#[tokio::test]
async fn one_generation_fails_and_the_next_one_starts_when_a_stream_goes_on() {
    let failed =
        ProviderError { code: ErrorCode::ServerError.into(), subreason: "OVERLOADED".into(), message: "no".into(), ..Default::default() };
    let (client, mut sight) = serve([(vec![Event::Failed(failed)], End::Stays)]).await;
    let session = client.session();
    let error = told(session.start("Hello")).await.1.expect("an error");
    assert_eq!(error.to_string(), "ServerError: no");
    assert_eq!(error.detail.expect("a detail").subreason, "OVERLOADED");
    let next = session.start("and now?");
    sight.command().await;
    assert!(matches!(sight.command().await, Command::Generate(request) if request == next.request));
}

#[tokio::test]
async fn a_generation_is_cancelled_when_it_is_dropped() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays)]).await;
    let session = client.session();
    let mut text = session.start("Hello").text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    let id = id_of(&sight.command().await);
    drop(text);
    assert_eq!(sight.next().await, Seen::Cancel(id.clone()));
    assert_eq!(sight.next().await, Seen::Cancel(id), "it is asked again, as the server did not know the request yet");
}

#[tokio::test]
async fn a_generation_runs_on_when_it_is_dropped_and_its_caller_has_said_so() {
    let (client, mut sight) = serve([(vec![chunk(0, "a")], End::Stays)]).await;
    let session = client.session();
    let mut text = session.start(with_policy(DisconnectPolicy::Keep)).text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    drop(text);
    sight.command().await;
    let other = session.start("Hello");
    sight.command().await;
    let id = other.request.request_id.clone();
    drop(other);
    assert_eq!(sight.next().await, Seen::Cancel(id), "the other one alone is cancelled");
}

#[tokio::test]
async fn both_read_everything_when_an_id_is_started_again() {
    let (client, mut sight) = serve([(vec![chunk(0, "a"), completed()], End::Stays), (vec![chunk(0, "a"), completed()], End::Ok)]).await;
    let session = client.session();
    let first = session.start("Hello");
    let second = session.start(first.request.clone());
    assert_eq!(told(first).await.0, "a completed");
    drop(session);
    let command = sight.command().await;
    assert_eq!(sight.next().await, Seen::HalfClose, "nothing else is sent, and the stream ends in good order");
    assert_eq!(told(second).await.0, "a completed");
    assert_eq!(sight.command().await, command);
}

#[tokio::test]
async fn the_deadline_ends_reconnecting_when_nobody_listens() {
    let client = Client::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
    let (_, error) = told(client.session_with_timeout(Duration::from_millis(120)).start("Hello")).await;
    assert_eq!(error.map(|error| error.code), Some(ErrorCode::Timeout));
}

#[tokio::test]
async fn connecting_is_an_error_when_nobody_listens_or_the_address_is_none() {
    assert_eq!(Client::connect("http://127.0.0.1:1").await.expect_err("nobody").to_string(), "transport error");
    assert_eq!(Client::connect("::").await.expect_err("no address").to_string(), "invalid URI");
}

#[tokio::test]
async fn a_missing_chunk_is_an_error() {
    let (client, _) = serve([(vec![chunk(0, "a"), chunk(2, "c"), completed()], End::Ok)]).await;
    let (words, error) = told(client.stream("Hello")).await;
    assert_eq!(words, "a");
    assert_eq!(error.expect("an error").message, "chunk 1 is missing");
}

#[tokio::test]
async fn text_is_an_error_when_the_answer_starts_again() {
    let again = Event::Discontinuity(Discontinuity::default());
    let (client, _) = serve([(vec![chunk(0, "a"), again, chunk(1, "A"), completed()], End::Ok)]).await;
    let mut text = client.stream("Hello").text();
    assert_eq!(text.next().await.expect("a piece").expect("a piece"), "a");
    assert!(text.next().await.expect("an error").is_err());
}

#[tokio::test]
async fn rpcs_carry_the_metadata_of_the_client() {
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
    let mut client = Client::connect(uri).await.unwrap();
    client.metadata.insert("authorization", "Bearer secret".parse().unwrap());
    let status = client.generation().generate(GenerateRequest::from("Hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(token.lock().unwrap().as_ref().unwrap(), "Bearer secret");
}
