//! x
mod signature; mod cache;
pub use cache::CacheReport;
/// .
pub struct Compiled;
impl Compiled { /// .
pub fn cache(&self) {} }
