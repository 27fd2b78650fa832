//! Which tags a repository has (distribution-spec, "Listing Tags").

use reqwest::header::LINK;
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::endpoint::is_same_origin;
use super::error::shown;
use super::exchange::Repository;

/// Bytes of one page.
const PAGE_BYTES_MAX: u64 = 4 << 20;
/// More than any repository people pull as a whole; a registry that never ends its list stops here.
const TAGS_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
struct Page {
    /// Some registries write null for none.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// Every tag, as the registry names and orders them: foreign text. Follows the pages of the list on the registry's own
    /// origin.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLarge`], [`Error::Protocol`], or the network's.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let mut url = self.url("tags", "list")?;
        let mut tags = Vec::new();
        loop {
            let (page, next) = self.retrying(async || self.page(&url).await).await?;
            let broken = |why| Error::Protocol {
                url: shown(&url),
                why,
            };
            if page.is_empty() && next.is_some() {
                return Err(broken("an empty page of tags is followed by another"));
            }
            tags.extend(page);
            if tags.len() > TAGS_MAX {
                return Err(broken("it lists more than 10000 tags"));
            }
            let Some(next) = next else { return Ok(tags) };
            if !is_same_origin(&next, &url) {
                return Err(broken("its list of tags goes on at another host"));
            }
            url = next;
        }
    }

    async fn page(&self, url: &Url) -> Result<(Vec<String>, Option<Url>), Error> {
        let response = self.request(&Method::GET, url.clone(), &|r| r).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::NotFound(self.path().to_owned()));
        }
        let response = self.success(response).await?;
        let link = response.headers().get(LINK).and_then(|value| value.to_str().ok());
        let next = link.and_then(next_page).and_then(|next| url.join(next).ok());
        let body = self.body(response, PAGE_BYTES_MAX).await?;
        let page: Page = serde_json::from_slice(&body).map_err(|_| Error::Protocol {
            url: shown(url),
            why: "its list of tags does not parse",
        })?;
        Ok((page.tags.unwrap_or_default(), next))
    }
}

/// The target of `rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        let header = r#"</v2/x/tags/list?last=a&n=1>; rel="next""#;
        assert_eq!(next_page(header), Some("/v2/x/tags/list?last=a&n=1"));
        let several = r#"</first>; rel="first", </second>; title="x"; rel=next"#;
        assert_eq!(next_page(several), Some("/second"));
        for none in ["", "</x>", "/x; rel=\"next\"", "</x>; rel=\"prev\""] {
            assert_eq!(next_page(none), None, "{none}");
        }
    }
}
