//! Sizes that inputs of public models have.

use super::dims::Guess;

/// Pictures: classifiers, detectors, lines of text, segmentation, patches of 14 and 16.
const PICTURES: [usize; 20] = [
    256, 320, 640, 512, 384, 128, 64, 32, 48, 96, 112, 160, 192, 299, 336, 416, 448, 518, 1024, 240,
];

/// Texts, frames of speech, windows of time.
const SEQUENCES: [usize; 14] = [16, 64, 128, 8, 1, 256, 512, 77, 2, 4, 100, 384, 1024, 3000];

/// Anything else: also samples of audio.
const OTHERS: [usize; 16] =
    [1, 512, 64, 32, 16000, 2, 256, 128, 8, 4, 3, 100, 400, 1024, 3000, 160];

const CHANNELS: [usize; 4] = [1, 4, 2, 12];

const BATCHES: [usize; 3] = [2, 4, 8];

/// The sizes to try after the first guess, the likeliest first.
pub(super) fn sizes(guess: Guess) -> &'static [usize] {
    match guess {
        Guess::Given(_) => &[],
        Guess::Batch => &BATCHES,
        Guess::Sequence => &SEQUENCES,
        Guess::Channels => &CHANNELS,
        Guess::Picture => &PICTURES,
        Guess::Leading | Guess::Other => &OTHERS,
    }
}
