//! Every number that a search goes by, with the reason for each. None of them decides what is good
//! enough; that is for the limits. They say what is tried, in which order, and when to give up.

use std::time::Duration;

/// All numbers, by what they are for. Tests replace them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tuning {
    pub(crate) descent: Descent,
    pub(crate) costs: Costs,
    pub(crate) ranging: Ranging,
    pub(crate) probing: Probing,
    pub(crate) mixing: Mixing,
    pub(crate) culprits: Culprits,
    pub(crate) latency: Latency,
    pub(crate) patience: PatienceTuning,
}

/// How a search goes down and back up.
#[derive(Clone, Debug)]
pub(crate) struct Descent {
    /// How many samples tell moves apart. Each costs a run for every switch, and from the third on they
    /// hardly change the order.
    pub(crate) most_probed: usize,
    /// How often the first plan that passes is halved back towards the last that failed: a 32nd of
    /// the way is left then, which single moves go through.
    pub(crate) bisections: usize,
    /// A plan with less than this much of the noise that is allowed nearly passes: 1 dB.
    pub(crate) near: f64,
    /// What share of the noise that is too much a move must take to be tried there: five such moves
    /// are as many as are tried.
    pub(crate) helpful: f64,
    /// How many single moves are tried to make a plan pass that nearly does.
    pub(crate) most_reaches: usize,
    /// How many moves are tried to be taken back, at most.
    pub(crate) most_taken_back: usize,
    /// Moves that cost less than this are not worth a trial, as shares of all bytes or all time.
    pub(crate) worth_a_trial: f64,
    /// What noises may add up to at first, of what is allowed: they are not all independent.
    pub(crate) share: f64,
    /// The least part of the target that a failure leaves of it: a prediction may be off by ten.
    pub(crate) least_kept: f64,
    /// The most that a failure leaves of the target, so that batches grow.
    pub(crate) most_kept: f64,
    /// Each batch is larger by this part of what is down already.
    pub(crate) growth: f64,
    /// Whether noises are put to scale by what the whole was seen to make: where not each source was
    /// looked at alone, their sum is not what it seems.
    pub(crate) calibrates: bool,
    /// Where a metric decides, what it allows is not known: what share of the noise is left at first,
    pub(crate) first_share: f64,
    /// and what share of that each time the metric is still too low.
    pub(crate) next_share: f64,
}

impl Default for Descent {
    fn default() -> Self {
        Descent {
            most_probed: 3,
            bisections: 5,
            near: 1.26,
            helpful: 0.2,
            most_reaches: 5,
            most_taken_back: 10,
            worth_a_trial: 0.004,
            share: 0.7,
            least_kept: 0.1,
            most_kept: 0.6,
            growth: 0.25,
            calibrates: false,
            first_share: 0.5,
            next_share: 0.4,
        }
    }
}

/// What moves cost.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// What every move costs, so that small ones are not free.
    pub(crate) every_move: f64,
    /// What the other of size and time counts, where one is the objective.
    pub(crate) minor: f64,
    /// What float16 leaves of int8's noise where that is not known: 2^-11 against 2^-8, squared.
    pub(crate) narrow_share: f64,
    /// What computing on integers by ranges counts, all of it together, beside which 16 bits for all weights,
    /// twice the file, count 1.
    pub(crate) time_by_ranges: f64,
    /// How many times as much bytes count there.
    pub(crate) bytes_by_ranges: f64,
    /// What a tensor that is quantized by a range is taken to do before anything is measured, relative to its
    /// power: a step of uniform rounding, where the range is that of the numbers.
    pub(crate) tensor_noise: f64,
    /// The least share of the weights' bytes that must stay int8 for a plan to be a quantization:
    /// otherwise a limit that int8 cannot meet would end with a model that is float32 but for one
    /// small layer.
    pub(crate) least_int8: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Costs {
            every_move: 2e-4,
            minor: 0.05,
            narrow_share: 1.0 / 64.0,
            time_by_ranges: 0.4,
            bytes_by_ranges: 5.0,
            tensor_noise: 1e-4,
            least_int8: 0.02,
        }
    }
}

/// How ranges of tensors are chosen.
#[derive(Clone, Debug)]
pub(crate) struct Ranging {
    /// How many samples tell ranges apart: one alone may never come near an end.
    pub(crate) most_samples: usize,
    /// How many tensors are looked at, the noisiest first. What the others do is little beside these.
    pub(crate) most_tensors: usize,
    /// The share of all trials that a search for a plan with ranges may make: the others are for one without.
    pub(crate) trials: f64,
    /// Another range has to leave less than this share of the noise.
    pub(crate) better: f64,
    /// How far above the limit a search for a plan with ranges stays, in dB, however many samples there are:
    /// ranges come from some, and others go beyond them.
    pub(crate) least_margin_db: f64,
    /// How much further with one sample. The worst of few is not the worst that there is.
    pub(crate) margin_of_one_db: f64,
    /// A plan with ranges and more than this share of the noise that is allowed is refined even so.
    pub(crate) comfortable: f64,
    /// A plan with ranges and less than this much of it nearly passes: 2 dB, which one noisy layer of many may
    /// make alone.
    pub(crate) near: f64,
    /// The most that one sample counts, as excess over the limits.
    pub(crate) loudest: f64,
}

impl Default for Ranging {
    fn default() -> Self {
        Ranging {
            most_samples: 2,
            most_tensors: 16,
            trials: 0.6,
            better: 0.7,
            least_margin_db: 1.0,
            margin_of_one_db: 4.0,
            comfortable: 0.5,
            near: 1.6,
            loudest: 1e6,
        }
    }
}

impl Ranging {
    /// How far above the limit a search stays that tries plans on so many samples, in dB.
    pub(crate) fn margin_db(&self, samples: usize) -> f64 {
        self.least_margin_db + self.margin_of_one_db / samples.max(1) as f64
    }
}

/// How noise is measured.
#[derive(Clone, Debug)]
pub(crate) struct Probing {
    /// By how much errors are made larger that the outputs do not resolve: each is too little
    /// alone, but not beside others.
    pub(crate) amplified: f32,
    /// From which excess over the limits on an error that is quantized by ranges is looked at again, made
    /// smaller by `gentle`: alone it turns decisions over, which says little of what it does beside others.
    pub(crate) loud: f64,
    pub(crate) gentle: f32,
    /// Models with more bytes of weights than this are not run under switches: it takes two copies
    /// of them.
    pub(crate) most_bytes: u64,
    /// How many layers that seem to gain most are looked at on all samples, at most.
    pub(crate) most_confirmed: usize,
}

impl Default for Probing {
    fn default() -> Self {
        Probing { amplified: 8.0, loud: 0.1, gentle: 0.25, most_bytes: 4 << 30, most_confirmed: 12 }
    }
}

/// How a model that is of 16 bits is mixed with float32.
#[derive(Clone, Debug)]
pub(crate) struct Mixing {
    /// Constants below this size are not worth a scheme of their own, in bytes: the cast that they need
    /// takes some hundred.
    pub(crate) small: u64,
    /// What a byte counts against computing a node in float32: a model of 16 bits is made for its
    /// size, and most processors compute float32 no slower. Above this the files hardly get smaller, and
    /// ever more nodes compute in float32.
    pub(crate) byte_weight: f64,
    /// How often the model is run under switches to find where its noise is made, for each sample: five
    /// noisy places among a thousand values are found in as many, and each run takes as long as three
    /// of the original.
    pub(crate) most_probes: usize,
    /// What is less than this share of the allowed noise needs no closer look.
    pub(crate) negligible: f64,
    /// How the search goes down and back. Computing a few more nodes in float32 costs little, so that
    /// less is tried on the way back than for int8.
    pub(crate) descent: Descent,
    /// How many candidates are run, at most.
    pub(crate) most_trials: usize,
    /// The same where each run takes very long.
    pub(crate) fewest_trials: usize,
}

impl Default for Mixing {
    fn default() -> Self {
        Mixing {
            small: 1024,
            byte_weight: 64.0,
            most_probes: 64,
            negligible: 0.02,
            descent: Descent {
                most_probed: 1,
                bisections: 6,
                most_reaches: 5,
                most_taken_back: 8,
                worth_a_trial: 0.01,
                calibrates: true,
                ..Descent::default()
            },
            most_trials: 25,
            fewest_trials: 6,
        }
    }
}

/// How layers to blame are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Culprits {
    /// How many layers are looked at under switches, which costs a run each.
    pub(crate) most_switched: usize,
    /// How many where each is a candidate that has to be written and loaded.
    pub(crate) most_made: usize,
    /// How many layers are looked at where a search has put them in order.
    pub(crate) most_ranked: usize,
    /// Of a time budget, so much has to be left for it to begin.
    pub(crate) reserve: Duration,
}

impl Default for Culprits {
    fn default() -> Self {
        Culprits {
            most_switched: 256,
            most_made: 24,
            most_ranked: 8,
            reserve: Duration::from_secs(20),
        }
    }
}

/// How a plan is made faster.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    /// How many plans are measured at most: each takes up to two seconds.
    pub(crate) most_trials: usize,
    /// A change of the time's ratio below this is noise.
    pub(crate) noticeable: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { most_trials: 16, noticeable: 0.01 }
    }
}

/// How long may be searched where nobody said so.
#[derive(Clone, Debug)]
pub(crate) struct PatienceTuning {
    /// How long a search may take in all, in seconds: as long as one waits beside other work.
    pub(crate) most_seconds: f64,
    /// What takes longer than this is announced, in seconds.
    pub(crate) worth_saying: f64,
    /// How many trials are made however long they take.
    pub(crate) fewest_trials: usize,
}

impl Default for PatienceTuning {
    fn default() -> Self {
        PatienceTuning { most_seconds: 300.0, worth_saying: 30.0, fewest_trials: 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_samples_ask_for_more_of_a_margin() {
        let margin = |samples| Ranging::default().margin_db(samples);
        assert!((margin(1) - 5.0).abs() < 1e-9 && (margin(4) - 2.0).abs() < 1e-9);
        assert!(margin(1000) < 1.01 && margin(0).is_finite());
    }
}
