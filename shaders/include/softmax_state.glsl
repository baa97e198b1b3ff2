// The state of a softmax over some keys: the largest logit and the sum of exp(logit - largest). Empty: -infinity and 0.
#ifndef KVANT_SOFTMAX_STATE_GLSL
#define KVANT_SOFTMAX_STATE_GLSL

#define SOFTMAX_EMPTY uintBitsToFloat(0xFF800000u)

// exp(x - reference); 0 for -infinity, also where everything is masked and the reference is -infinity too.
float softmax_weight(float x, float reference) { return x == SOFTMAX_EMPTY ? 0.0 : exp(x - reference); }

// Joins the state (largest, sum) with another one; returns the factor that what was weighted by the old maximum takes.
float softmax_join(inout float largest, inout float sum, float other_largest, float other_sum) {
  const float joint = max(largest, other_largest);
  const float factor = softmax_weight(largest, joint);
  sum = sum * factor + other_sum * softmax_weight(other_largest, joint);
  largest = joint;
  return factor;
}

float softmax_lse(float largest, float sum) { return sum == 0.0 ? SOFTMAX_EMPTY : largest + log(sum); }
#endif
