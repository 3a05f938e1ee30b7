use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::v1::analytics_service_client::AnalyticsServiceClient;
use crate::v1::content_part::Part;
use crate::v1::generation_service_client::GenerationServiceClient;
use crate::v1::provider_service_client::ProviderServiceClient;
use crate::v1::request_service_client::RequestServiceClient;
use crate::v1::{ChatMessage, ContentPart, ErrorCode, GenerateRequest, MessageRole};
use crate::{Error, Generation, Session};

/// What the stubs send over.
pub type Transport = InterceptedService<Channel, Token>;

/// A connection. Clones share it. What is streamed runs in a task of the current Tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    token: Token,
}

impl Client {
    /// Connects to `http://HOST:PORT`, or to `https://HOST:PORT` where one of tonic's `tls-` features is on.
    pub async fn connect(uri: impl Into<String>) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(uri.into()).map_err(|error| Error::new(ErrorCode::InvalidRequest, error.to_string()))?;
        Ok(Self::new(endpoint.connect().await.map_err(|error| Status::from_error(error.into()))?))
    }

    /// A client on a channel of tonic's, which connects again by itself.
    pub fn new(channel: Channel) -> Self {
        Self { channel, token: Token(None) }
    }

    /// The same client, whose RPCs carry a bearer token. One that cannot stand in a header is an error.
    pub fn with_token(self, token: &str) -> Result<Self, Error> {
        let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| Status::unauthenticated("not a token"))?;
        Ok(Self { token: Token(Some(value)), ..self })
    }

    /// Runs one generation on a stream of its own. A text is a request of one message of the user.
    pub fn stream(&self, request: impl Into<GenerateRequest>) -> Generation {
        self.session().start(request)
    }

    /// A session, whose stream is opened by its first generation.
    pub fn session(&self) -> Session {
        Session::new(self.generation(), None)
    }

    /// A session that ends after so much time; the server knows it as the deadline.
    pub fn session_with_timeout(&self, timeout: Duration) -> Session {
        Session::new(self.generation(), Some(timeout))
    }

    /// The stub of `GenerationService`. The statuses of all stubs convert to [`Error`], by `?` too.
    pub fn generation(&self) -> GenerationServiceClient<Transport> {
        GenerationServiceClient::new(self.transport())
    }

    /// The stub of `RequestService`.
    pub fn request(&self) -> RequestServiceClient<Transport> {
        RequestServiceClient::new(self.transport())
    }

    /// The stub of `ProviderService`.
    pub fn provider(&self) -> ProviderServiceClient<Transport> {
        ProviderServiceClient::new(self.transport())
    }

    /// The stub of `AnalyticsService`.
    pub fn analytics(&self) -> AnalyticsServiceClient<Transport> {
        AnalyticsServiceClient::new(self.transport())
    }

    fn transport(&self) -> Transport {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }
}

/// Adds the token of [`Client::with_token`] to every RPC.
#[derive(Clone, Debug)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl From<&str> for GenerateRequest {
    fn from(prompt: &str) -> Self {
        let content = vec![ContentPart { part: Some(Part::Text(prompt.into())) }];
        Self { messages: vec![ChatMessage { role: MessageRole::User.into(), content }], ..Default::default() }
    }
}
