//! What is wanted of a quantization: flags of `quantize` and keys of a recipe alike.
use super::{
    ActivationScales, CodeChoice, Effort, Embeddings, GroupFallback, GroupSize, Method,
    QuantizeError, RoundingSettings, RoundingTarget, Rule, ShardSize, TargetEngine, Tuning,
    words::preset,
};
use crate::number::{above_to, number, whole};
use crate::scheme::{Activations, Granularity, KvPrecision, Preset, WeightGrid};

/// Settings of `quantize`. Every field is a flag and a recipe key of the same name.
#[derive(Clone, Debug, PartialEq, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "quantize")]
pub struct Settings {
    /// Numbers of weights and activations: w8a16, w8a8, w4a16, w4a8, mxfp4
    #[arg(long, default_value = "w4a16")]
    pub scheme: String,
    /// What the package has to load in
    #[arg(long = "for", value_enum, value_name = "ENGINE")]
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub engine: Option<TargetEngine>,
    /// How much is done against the loss; other flags change single choices of it
    #[arg(long, value_enum, default_value_t)]
    pub preset: Effort,
    /// Weights that share a scale: 32, 64, 128 or channel [default: 64 for int4, channel for int8]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_size: Option<GroupSize>,
    /// Store a zero point beside each scale
    #[arg(long)]
    pub asymmetric: bool,
    /// How scales are chosen [default: mse; absmax in vendor-standard]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// How codes are chosen [default: adaptive; nearest in fast and vendor-standard]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounding: Option<CodeChoice>,
    /// What layers are rounded towards
    #[arg(long, value_enum, default_value_t)]
    pub target: RoundingTarget,
    /// Ridge of the least-squares target towards the weights, relative to the mean of the diagonal
    /// of the inputs' covariance
    #[arg(long, value_name = "X", default_value_t = 0.3, value_parser = number::<f64>(0.0..))]
    pub target_damping: f64,
    /// Added to the diagonal of the inputs' covariance when codes are chosen, relative to its mean
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = number::<f64>(0.0..))]
    pub damping: f64,
    /// Rounds of descent on codes and scales behind the first choice [default: 1; 4 in best]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweeps: Option<usize>,
    /// Whether and how it learns behind its rounding.
    #[command(flatten)]
    #[serde(flatten)]
    pub tuning: Tuning,
    /// Share of the columns of each int4 weight in blocks that is kept at int8, e.g. 0.0625: those
    /// that rounding costs most
    #[arg(long, value_name = "SHARE", value_parser = number::<f64>(above_to(0.0, 0.5)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<f64>,
    /// Scales of int8 activations: one per token, or one for all
    #[arg(long, value_enum, default_value_t)]
    pub activations: ActivationScales,
    /// Bits of embeddings and head, one scale per row; 4 follows the scheme [default: float where
    /// the engine takes no codes there, else 8]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<Embeddings>,
    /// How keys and values of past tokens are held when the package runs
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    pub kv_cache: KvPrecision,
    /// Bits per weight of the whole package, scales included: schemes are chosen by measured loss
    #[arg(long, value_name = "BITS", conflicts_with = "max_bytes", value_parser = number::<f64>(above_to(0.0, 64.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_bits: Option<f64>,
    /// Bytes of all tensors of the package, e.g. 80MB: schemes are chosen by measured loss
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ShardSize>,
    /// Another scheme for some weights, e.g. `model.layers.0.self_attn.q_proj=w8a8` or
    /// `re:.*down_proj=w4a16-g32` or `re:model\.layers\.0\..*=float`; the last match counts
    #[arg(long = "rule", value_name = "PATTERN=SCHEME")]
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
    /// What to do with columns that the group size does not divide
    #[arg(long, value_enum, default_value_t)]
    pub group_fallback: GroupFallback,
    /// Go on when weights are NaN or infinite: NaN becomes 0, infinity the row's largest number
    #[arg(long)]
    pub allow_nonfinite: bool,
    /// Largest safetensors file, e.g. 500MB
    #[arg(long, value_name = "SIZE", default_value_t)]
    pub shard_size: ShardSize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheme: "w4a16".into(),
            engine: None,
            preset: Effort::default(),
            group_size: None,
            asymmetric: false,
            method: None,
            rounding: None,
            target: RoundingTarget::default(),
            target_damping: 0.3,
            damping: 0.01,
            sweeps: None,
            tuning: Tuning::default(),
            outliers: None,
            activations: ActivationScales::default(),
            embeddings: None,
            kv_cache: KvPrecision::default(),
            avg_bits: None,
            max_bytes: None,
            rules: Vec::new(),
            group_fallback: GroupFallback::default(),
            allow_nonfinite: false,
            shard_size: ShardSize::default(),
        }
    }
}

impl Settings {
    /// The preset that `scheme` names.
    pub fn preset(&self) -> Result<&'static Preset, QuantizeError> {
        preset(&self.scheme)
    }

    /// The same with everything that the preset chooses written out.
    pub fn resolved(&self) -> Self {
        Self {
            engine: Some(self.engine()),
            embeddings: Some(self.embeddings()),
            method: Some(self.method()),
            rounding: Some(self.rounding()),
            sweeps: Some(self.rounding_settings().sweeps),
            ..self.clone()
        }
    }

    /// Bits of the static grids of a vendor's standard scheme: 8 where the scheme has int8
    /// activations, 16 where it leaves them in float.
    pub fn vendor_activation_bits(&self) -> Result<u32, QuantizeError> {
        Ok(match self.preset()?.activations {
            Activations::Float => 16,
            Activations::Int8PerToken | Activations::Int8Static => 8,
        })
    }

    /// How layers are rounded on calibration text.
    pub fn rounding_settings(&self) -> RoundingSettings {
        let Self { target, target_damping, damping, .. } = *self;
        let sweeps = self.sweeps.unwrap_or(if self.preset == Effort::Best { 4 } else { 1 });
        RoundingSettings { target, target_damping, damping, sweeps }
    }

    /// What the package has to load in.
    pub fn engine(&self) -> TargetEngine {
        self.engine.unwrap_or_else(|| TargetEngine::of(self.preset))
    }

    /// What becomes of embeddings and head.
    pub fn embeddings(&self) -> Embeddings {
        self.embeddings.unwrap_or_else(|| self.engine().embeddings())
    }

    /// How scales are chosen.
    pub fn method(&self) -> Method {
        let vendor = self.preset == Effort::VendorStandard;
        self.method.unwrap_or(if vendor { Method::Absmax } else { Method::Mse })
    }

    /// How codes are chosen.
    pub fn rounding(&self) -> CodeChoice {
        self.rounding.unwrap_or(match self.preset {
            Effort::Fast | Effort::VendorStandard => CodeChoice::Nearest,
            Effort::Balanced | Effort::Best => CodeChoice::Adaptive,
        })
    }

    /// The share of columns that is kept at int8, if there is one and the other settings allow it.
    pub fn outlier_share(&self) -> Result<Option<f64>, QuantizeError> {
        let Some(share) = self.outliers else { return Ok(None) };
        let wrong = |found: String, expected| Err(QuantizeError::Value { found, expected });
        if self.rounding() == CodeChoice::Nearest {
            let found = "outliers with rounding nearest".to_owned();
            return wrong(found, "possible: outliers are chosen on text (--rounding adaptive)");
        }
        if self.has_budget() {
            let found = "outliers within a budget of bits or bytes".to_owned();
            return wrong(found, "possible: a budget chooses among group sizes and bits only");
        }
        Ok(Some(share))
    }

    /// Whether int8 activations have static scales, if the other settings allow it.
    pub fn static_activations(&self) -> Result<bool, QuantizeError> {
        if self.activations == ActivationScales::Dynamic {
            return Ok(false);
        }
        let wrong = |found: String, expected| Err(QuantizeError::Value { found, expected });
        if self.preset()?.activations == Activations::Float {
            let found = format!("static activations with scheme {}", self.scheme);
            return wrong(found, "possible: a scheme with int8 activations has them (w8a8, w4a8)");
        }
        if self.rounding() == CodeChoice::Nearest {
            let found = "static activations with rounding nearest".to_owned();
            return wrong(found, "possible: scales are chosen on text (--rounding adaptive)");
        }
        Ok(true)
    }

    /// A grid with the groups that are wanted for it, that the settings name, or its own; rows in the
    /// vendors' form.
    pub fn grid(
        &self,
        grid: WeightGrid,
        group: Option<GroupSize>,
        symmetric: bool,
    ) -> Result<WeightGrid, QuantizeError> {
        let coarse = self.preset == Effort::VendorStandard;
        let rows = grid.with(Granularity::Channel, symmetric).filter(|_| coarse);
        let wanted = match group.or(self.group_size) {
            Some(GroupSize::Channel) => Granularity::Channel,
            Some(GroupSize::Of(size)) => Granularity::Group(size),
            None => rows.map_or(grid.granularity(), |rows| rows.granularity()),
        };
        grid.with(wanted, symmetric).ok_or_else(|| QuantizeError::Grid {
            name: grid.name(),
            grid: grid.shown(),
            found: match wanted {
                _ if grid.with(wanted, true).is_some() => "zero points".to_owned(),
                Granularity::Channel => "scales of whole rows".to_owned(),
                Granularity::Group(size) => format!("groups of {size}"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number;

    #[test]
    fn settings_survive_json() {
        let settings = Settings {
            group_size: Some(GroupSize::Channel),
            rules: vec!["re:.*=w4a16-g32".parse().unwrap()],
            shard_size: "500 mb".parse().unwrap(),
            ..Settings::default()
        };
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(json["shard-size"], "500MB");
        assert_eq!(serde_json::from_value::<Settings>(json).unwrap(), settings);
        let number = serde_json::json!({ "group-size": 128, "embeddings": 4 });
        let read: Settings = serde_json::from_value(number).unwrap();
        assert_eq!(read.group_size, Some(GroupSize::Of(128)));
        assert_eq!(read.embeddings, Some(Embeddings::Four));
    }

    #[test]
    fn settings_made_by_hand_have_the_ranges_of_their_flags() {
        let checked = |settings: Settings| number::check(&settings).map_err(|it| it.to_string());
        let every = Settings {
            group_size: Some(GroupSize::Of(32)),
            rules: vec!["re:.*=w4a16-g32".parse().unwrap()],
            shard_size: "500 mb".parse().unwrap(),
            outliers: Some(0.5),
            damping: 0.0,
            target_damping: 0.0,
            ..Settings::default()
        };
        assert_eq!(checked(Settings::default()), Ok(()));
        assert_eq!(checked(every), Ok(()));
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            let error = checked(Settings { damping: wrong, ..Settings::default() }).unwrap_err();
            assert!(error.starts_with("`damping`: expected a number"), "{error}");
            let settings = Settings { target_damping: wrong, ..Settings::default() };
            assert!(checked(settings).unwrap_err().starts_with("`target-damping`"), "{wrong}");
        }
    }

    #[test]
    fn wrong_values_tell_what_is_right() {
        let told = |error: QuantizeError| error.to_string();
        assert!(told("48".parse::<GroupSize>().unwrap_err()).contains("32, 64, 128 or channel"));
        assert!(told("a.b".parse::<Rule>().unwrap_err()).contains("PATTERN=SCHEME"));
        assert!(told("a=w3a16".parse::<Rule>().unwrap_err()).contains("known are w8a16"));
        assert!(told("0MB".parse::<ShardSize>().unwrap_err()).contains("a size such as"));
    }
}
