//! Where the services are. Whoever asks need not be known.

use std::sync::Arc;

use http::uri::Authority;
use longrun_api::yandex::cloud::endpoint::{ApiEndpoint, GetApiEndpointRequest, ListApiEndpointsResponse};
use longrun_api::{ApiError, Reason};

use super::Faces;

/// The services that clients look up, all of them at one address. Source: the SDKs, which look for these.
const ENDPOINTS: &[&str] = &["compute", "endpoint", "iam", "operation", "resource-manager", "vpc"];

impl Faces {
    pub(crate) fn endpoints(&self, reached_at: Option<&Authority>) -> ListApiEndpointsResponse {
        let endpoints = ENDPOINTS.iter().map(|id| self.endpoint(id, reached_at)).collect();
        ListApiEndpointsResponse { endpoints, next_page_token: String::new() }
    }

    pub(crate) fn find_endpoint(
        &self,
        request: &GetApiEndpointRequest,
        reached_at: Option<&Authority>,
    ) -> Result<ApiEndpoint, ApiError> {
        let found = ENDPOINTS.iter().find(|id| **id == request.api_endpoint_id);
        let none = || ApiError::new(Reason::NotFound, "the endpoint does not exist");
        found.map(|id| self.endpoint(id, reached_at)).ok_or_else(none)
    }

    /// What is advertised; else where gRPC was reached, which is where it can be reached, whatever lies in between; else
    /// where it listens.
    fn endpoint(&self, id: &str, reached_at: Option<&Authority>) -> ApiEndpoint {
        let reached = || {
            let authority = reached_at?;
            Some(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443)))
        };
        let known = |address: &Option<Arc<str>>| address.as_deref().map(str::to_owned);
        let address = known(&self.advertised).or_else(reached).or_else(|| known(&self.listens_at));
        ApiEndpoint { id: id.to_owned(), address: address.unwrap_or_default() }
    }
}
