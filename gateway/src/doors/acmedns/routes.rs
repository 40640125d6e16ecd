//! Which route a path means.
//!
//! People put a base path in front of acme-dns, often a secret one, and clients glue `/update` to whatever base URL they were given. So a route is the
//! last segment; what stands before it is a configured prefix, and then perhaps the registration token. Empty segments do not count.

use std::borrow::Cow;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/register`, and the token that stood in the path.
    Register(Option<Cow<'a, [u8]>>),
    /// `/update`.
    Update,
    /// `/health`.
    Health,
}

/// The configured base paths.
#[derive(Debug)]
pub(super) struct Routes {
    prefixes: Vec<String>,
    /// One segment between the prefix and the route is a registration token. It says nothing to `/update` and `/health`, where any will do: a token
    /// that is withdrawn must not stop the renewals of those who registered with it.
    tokens: bool,
}

impl Routes {
    pub(super) fn new(prefixes: &[String], tokens: bool) -> Self {
        Self { prefixes: prefixes.to_vec(), tokens }
    }

    pub(super) fn of<'a>(&self, path: &'a str) -> Option<Route<'a>> {
        let (base, name) = split_last(path)?;
        let token = if self.is_prefix(base) {
            None
        } else {
            let (base, token) = split_last(base).filter(|_| self.tokens)?;
            if !self.is_prefix(base) {
                return None;
            }
            Some(token)
        };
        match name {
            "register" => Some(Route::Register(token.map(percent_decode))),
            "update" => Some(Route::Update),
            "health" => Some(Route::Health),
            _ => None,
        }
    }

    fn is_prefix(&self, base: &str) -> bool {
        self.prefixes.iter().any(|prefix| segments(prefix).eq(segments(base)))
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn split_last(path: &str) -> Option<(&str, &str)> {
    path.trim_end_matches('/').rsplit_once('/')
}

fn percent_decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()).filter(|_| byte == b'%');
        match code {
            Some(code) => {
                decoded.extend_from_slice(&code);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(prefixes: &[&str], tokens: bool) -> Routes {
        Routes::new(&prefixes.iter().map(|prefix| (*prefix).to_owned()).collect::<Vec<_>>(), tokens)
    }

    #[test]
    fn the_three_routes_and_nothing_else() {
        let routes = routes(&[""], false);
        assert_eq!(routes.of("/register"), Some(Route::Register(None)));
        assert_eq!(routes.of("/update"), Some(Route::Update));
        assert_eq!(routes.of("/update/"), Some(Route::Update));
        assert_eq!(routes.of("//update"), Some(Route::Update));
        assert_eq!(routes.of("/health"), Some(Route::Health));
        for unknown in ["/", "", "/UPDATE", "/updates", "/x/update", "/update/x", "/register/health"] {
            assert_eq!(routes.of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn each_route_stands_under_each_prefix() {
        let routes = routes(&["/acme", "a/b/"], false);
        assert_eq!(routes.of("/acme/update"), Some(Route::Update));
        assert_eq!(routes.of("/a/b/health/"), Some(Route::Health));
        for unknown in ["/update", "/a/update", "/b/update", "/acme/x/update", "/acm/update", "/acmee/update"] {
            assert_eq!(routes.of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_token_stands_between_prefix_and_route() {
        let routes = routes(&["", "/acme"], true);
        let token = |text: &'static str| Some(Route::Register(Some(Cow::Borrowed(text.as_bytes()))));
        assert_eq!(routes.of("/secret/register"), token("secret"));
        assert_eq!(routes.of("/acme/secret/register"), token("secret"));
        assert_eq!(routes.of("/s%65cr%65t%/register"), token("secret%"));
        assert_eq!(routes.of("/acme/register"), Some(Route::Register(None)));
        assert_eq!(routes.of("/old/update"), Some(Route::Update));
        assert_eq!(routes.of("/a/b/register"), None);
    }
}
