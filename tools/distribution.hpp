// Next-token distributions, as log-probabilities over a vocabulary.
#pragma once

#include <span>

namespace kvant::tools {

// Logits to log-probabilities, in place.
void log_softmax(std::span<float> row);

// In nats, of the distribution `truth` to `other`, both log-probabilities.
double kl_divergence(std::span<const float> truth, std::span<const float> other);

}  // namespace kvant::tools
