//! Rotary settings by kind of attention.
use super::config::{ConfigError, unfit};
use serde_json::{Map, Value};

const THETA: &str = "rope_theta";
const OLD: &str = "rope_scaling";
const NEW: &str = "rope_parameters";

/// Puts the rotary settings of a model whose blocks turn by two bases into their old form, which all
/// engines read: `rope_theta` and `rope_scaling` for blocks of the second of `kinds`, a key with its
/// default for those of the first. The new form has an object for each kind under `rope_parameters`.
pub(super) fn by_kind(
    keys: &mut Map<String, Value>,
    kinds: [&str; 2],
    (local_key, local_theta): (&str, f64),
) -> Result<(), ConfigError> {
    let [local, whole] = kinds;
    let parameters = keys.remove(NEW).filter(|it| !it.is_null());
    for (kind, mut settings) in objects(parameters, kinds)? {
        let is_default = |it: &Value| it == "default";
        let is_plain = settings.get("rope_type").is_none_or(is_default);
        if let Some(theta) = settings.remove(THETA).filter(|it| !it.is_null()) {
            keys.insert(if kind == local { local_key } else { THETA }.to_owned(), theta);
        }
        if kind == local && !is_plain {
            let key = format!("{NEW}.{local}.rope_type");
            return Err(unfit(&key, "`default`", &settings["rope_type"]));
        }
        if kind == whole && !is_plain && keys.get(OLD).is_none_or(Value::is_null) {
            keys.insert(OLD.to_owned(), Value::Object(settings));
        }
    }
    let theta = keys.entry(local_key).or_insert(Value::Null);
    if theta.is_null() {
        *theta = local_theta.into();
    }
    if theta.as_f64().is_some_and(|theta| theta > 1.0) {
        return Ok(());
    }
    Err(unfit(local_key, "a number above 1", theta))
}

/// Settings by kind.
type Kinds = Vec<(String, Map<String, Value>)>;

/// The settings of each kind; kinds without any are left out.
fn objects(parameters: Option<Value>, kinds: [&str; 2]) -> Result<Kinds, ConfigError> {
    let all = match parameters {
        None => return Ok(Vec::new()),
        Some(Value::Object(all)) => all,
        Some(other) => return Err(unfit(NEW, "an object", &other)),
    };
    let mut objects = Vec::new();
    for (kind, settings) in all {
        match settings {
            _ if !kinds.contains(&kind.as_str()) => {
                let expected = format!("`{}` and `{}` alone", kinds[0], kinds[1]);
                return Err(unfit(NEW, expected, &kind.into()));
            }
            Value::Null => {}
            Value::Object(settings) => objects.push((kind, settings)),
            other => return Err(unfit(&format!("{NEW}.{kind}"), "an object", &other)),
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KINDS: [&str; 2] = ["sliding_attention", "full_attention"];

    fn old_form(config: Value) -> Result<Value, ConfigError> {
        let mut keys = config.as_object().unwrap().clone();
        by_kind(&mut keys, KINDS, ("rope_local_base_freq", 10_000.0))?;
        Ok(Value::Object(keys))
    }

    #[test]
    fn both_forms_say_the_same() {
        let new = json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        }});
        let old = json!({
            "rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_local_base_freq": 5000.0,
        });
        assert_eq!(old_form(new).unwrap(), old);
        assert_eq!(old_form(old.clone()).unwrap(), old, "what is in the old form stays");
        let nothing = json!({"rope_local_base_freq": 10_000.0});
        assert_eq!(old_form(json!({})).unwrap(), nothing);
    }

    #[test]
    fn settings_that_no_form_has_are_refused_by_name() {
        for (config, key) in [
            (json!({"rope_parameters": {"rope_type": "default"}}), "`rope_parameters`"),
            (json!({"rope_parameters": []}), "`rope_parameters`"),
            (json!({"rope_parameters": {"full_attention": 3}}), "rope_parameters.full_attention"),
            (
                json!({"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}),
                "rope_parameters.sliding_attention.rope_type",
            ),
            (json!({"rope_local_base_freq": 0.5}), "rope_local_base_freq"),
            (json!({"rope_local_base_freq": "many"}), "rope_local_base_freq"),
        ] {
            let error = old_form(config).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("expected"), "{error}");
        }
    }
}
