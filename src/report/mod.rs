//! Results as tables, JSON, Markdown and `JUnit` XML.
