//! Static files beside the routes: the demo page.

use std::path::Path;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use tower_http::services::ServeDir;

use super::ServeError;

/// `'wasm-unsafe-eval'` lets a page compile WebAssembly, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
    img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the files of `dir` wherever no route is.
pub(super) fn mount(router: Router, dir: &Path) -> Result<Router, ServeError> {
    if !dir.is_dir() {
        return Err(ServeError::Setting(format!(
            "--site: got {:?}, takes a folder of static files",
            dir.display()
        )));
    }
    let files =
        Router::new().fallback_service(ServeDir::new(dir)).layer(axum::middleware::map_response(headers));
    Ok(router.fallback_service(files))
}

async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer"));
    // Files may change with any deploy; the browser asks, and mostly hears 304.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
