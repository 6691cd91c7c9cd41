//! A trouble that goes on is said once, not at every attempt.

/// What is wrong with something now, if anything.
#[derive(Debug, Default)]
pub(crate) struct Outage(String);

impl Outage {
    /// Returns whether a trouble is news: it was not the last one already.
    pub(crate) fn begins(&mut self, trouble: &str) -> bool {
        let news = self.0 != trouble;
        if news {
            trouble.clone_into(&mut self.0);
        }
        news
    }

    /// Returns whether something is wrong.
    pub(crate) fn lasts(&self) -> bool {
        !self.0.is_empty()
    }

    /// Notes that all is well: the next trouble is news.
    pub(crate) fn ends(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_news_once_until_all_was_well() {
        let mut outage = Outage::default();
        let mut told = |trouble: Option<&str>| match trouble {
            Some(trouble) => outage.begins(trouble),
            None => {
                outage.ends();
                false
            }
        };
        let troubles = [Some("a"), Some("a"), Some("b"), Some("a"), None, Some("a"), Some("a")];
        assert_eq!(troubles.map(&mut told), [true, false, true, true, false, true, false]);
    }
}
