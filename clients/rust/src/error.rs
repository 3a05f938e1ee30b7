use std::fmt;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::v1::{ErrorCode, FieldViolation, ProviderError};

/// Why an RPC or a generation failed.
#[derive(Clone, Debug)]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// A finer word within the code, such as CONTEXT_LENGTH; empty where there is none.
    pub subreason: String,
    /// The same for people.
    pub message: String,
    /// How long to wait before a new try, where somebody named a delay.
    pub retry_after: Option<Duration>,
    /// Which fields of the request are wrong.
    pub field_violations: Vec<FieldViolation>,
    /// All that was told; not set where the connection failed.
    pub detail: Option<Box<ProviderError>>,
    /// The status of the RPC; not set where a generation failed and the stream goes on.
    pub status: Option<Box<Status>>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: String) -> Self {
        let (subreason, field_violations) = Default::default();
        Self { code, subreason, message, retry_after: None, field_violations, detail: None, status: None }
    }

    /// Whether the stream broke, as against Headrace having ended it: a refusal has a detail.
    pub(crate) fn is_lost(&self) -> bool {
        match self.status.as_ref().map(|status| status.code()) {
            Some(Code::Unavailable) => true,
            Some(Code::Cancelled | Code::Internal | Code::Unknown) => self.detail.is_none(), // other names of a reset connection
            _ => false,
        }
    }
}

impl From<ProviderError> for Error {
    fn from(detail: ProviderError) -> Self {
        let delay = detail.rate_limit.and_then(|limit| limit.retry_after);
        Self {
            code: detail.code(),
            subreason: detail.subreason.clone(),
            message: detail.message.clone(),
            retry_after: delay.and_then(|delay| delay.try_into().ok()),
            field_violations: detail.field_violations.clone(),
            detail: Some(Box::new(detail)),
            status: None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
        let detail = details.iter().find_map(|detail| detail.to_msg::<ProviderError>().ok());
        let code = match status.code() {
            Code::Cancelled => ErrorCode::Cancelled,
            Code::DeadlineExceeded => ErrorCode::Timeout,
            Code::Unavailable => ErrorCode::NetworkError,
            Code::Unknown if std::error::Error::source(&status).is_some() => ErrorCode::NetworkError, // a reset connection
            _ => ErrorCode::UnknownError,
        };
        let mut error = detail.map_or_else(|| Self::new(code, String::new()), Self::from);
        error.message = status.message().into();
        if let Some(request) = status.get_details_bad_request() {
            // The ProviderError of a status comes without them.
            let violations = request.field_violations.into_iter();
            error.field_violations = violations.map(|v| FieldViolation { field: v.field, description: v.description }).collect();
        }
        error.status = Some(Box::new(status));
        error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.as_str_name().trim_start_matches("ERROR_CODE_");
        let slash = if self.subreason.is_empty() { "" } else { "/" };
        write!(f, "{code}{slash}{}: {}", self.subreason, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.status.as_deref().map(|status| status as _)
    }
}
