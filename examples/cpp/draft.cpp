// Speculative decoding of three sequences from C++17, by libgdn: a decode, the verification of drafts, the commit of what was
// accepted, and a step captured into a CUDA graph. Everything is held against a recurrence in f64 below.
//
//   c++ -std=c++17 -I ../c draft.cpp -o draft $(pkg-config --cflags --libs gdn) -ldl && ./draft
//
// or by the CMakeLists.txt beside it.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "driver.h"

namespace {

constexpr uint32_t H = 2, HV = 4, K = 128, V = 128, N = 3, T = 4, SLOTS = 5;
constexpr gdn_shape SHAPE{H, HV, K, V};
constexpr size_t STATE = size_t(HV) * V * K;

struct Destroy {
  void operator()(gdn_context *context) const { gdn_context_destroy(context); }
  void operator()(gdn_prepared *prepared) const { gdn_prepared_destroy(prepared); }
};
using Context = std::unique_ptr<gdn_context, Destroy>;
using Prepared = std::unique_ptr<gdn_prepared, Destroy>;

std::mt19937 generator(7);

std::vector<float> gaussian(size_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float &value : values) value = normal(generator);
  return values;
}

// The inputs of some tokens, on the host and on the device.
struct Tokens {
  uint32_t count;
  std::vector<float> q, k, v, a, b;
  gdn_rows on_device[5];

  explicit Tokens(uint32_t tokens)
      : count(tokens), q(gaussian(tokens * H * K)), k(gaussian(tokens * H * K)), v(gaussian(tokens * HV * V)),
        a(gaussian(tokens * HV)), b(gaussian(tokens * HV)) {
    const std::vector<float> *all[] = {&q, &k, &v, &a, &b};
    for (int i = 0; i < 5; i++) {
      Address address = upload(all[i]->data(), all[i]->size() * sizeof(float));
      on_device[i] = gdn_rows_packed(address, GDN_F32, tokens, all[i]->size() / tokens);
    }
  }
};

// The gate's parameters, one of each for a value head.
struct Layer {
  std::vector<float> a_log = gaussian(HV, 0.5f), dt_bias = gaussian(HV, 0.5f);
  gdn_tensor a_log_on_device{upload(a_log.data(), HV * sizeof(float)), HV, GDN_F32, 0};
  gdn_tensor dt_bias_on_device{upload(dt_bias.data(), HV * sizeof(float)), HV, GDN_F32, 0};

  gdn_inputs inputs(const Tokens &tokens) const {
    gdn_inputs inputs{};
    inputs.shape = SHAPE;
    inputs.q = tokens.on_device[0];
    inputs.k = tokens.on_device[1];
    inputs.v = tokens.on_device[2];
    inputs.decay.a = tokens.on_device[3];
    inputs.decay.a_log = a_log_on_device;
    inputs.decay.dt_bias = dt_bias_on_device;
    inputs.beta.b = tokens.on_device[4];
    return inputs;
  }

  // Token `t` on one sequence's state, in f64: what the kernels compute.
  void step(const Tokens &tokens, uint32_t t, double *state, double *out) const {
    for (uint32_t head = 0; head < HV; head++) {
      const float *q = &tokens.q[(t * H + head / (HV / H)) * K], *k = &tokens.k[(t * H + head / (HV / H)) * K];
      double qq = 1e-6, kk = 1e-6;
      for (uint32_t i = 0; i < K; i++) qq += double(q[i]) * q[i], kk += double(k[i]) * k[i];
      const double q_factor = 1 / std::sqrt(qq * K), k_factor = 1 / std::sqrt(kk);
      const double decay = std::exp(-std::exp(double(a_log[head])) *
                                    std::log1p(std::exp(double(tokens.a[t * HV + head]) + dt_bias[head])));
      const double beta = 1 / (1 + std::exp(-double(tokens.b[t * HV + head])));
      for (uint32_t row = 0; row < V; row++) {
        double *h = state + (size_t(head) * V + row) * K, seen = 0, read = 0;
        for (uint32_t i = 0; i < K; i++) h[i] *= decay, seen += h[i] * k[i] * k_factor;
        const double correction = beta * (tokens.v[(t * HV + head) * V + row] - seen);
        for (uint32_t i = 0; i < K; i++) h[i] += correction * k[i] * k_factor, read += h[i] * q[i] * q_factor;
        out[head * V + row] = read;
      }
    }
  }
};

// The states and outputs that there should be, and how far the device's are from them.
struct Reference {
  std::vector<double> pool, out;

  double *slot(int32_t slot) { return &pool[size_t(slot) * STATE]; }
};

double difference(Address address, const std::vector<double> &want) {
  std::vector<float> have(want.size());
  done(cuda.to_host(have.data(), address, have.size() * sizeof(float)), "cuMemcpyDtoH");
  double largest = 0;
  for (size_t i = 0; i < want.size(); i++) {
    const double error = std::abs(have[i] - want[i]);
    largest = std::isfinite(error) ? std::max(largest, error) : INFINITY;
  }
  return largest;
}

bool report(const char *what, double error) {
  const bool right = error < 1e-4;
  std::printf("%s: %s, within %.1e of f64\n", what, right ? "right" : "WRONG", error);
  return right;
}

} // namespace

int main() {
  // The kernels of a model, and those of f32 inputs, which this example takes.
  const gdn_key keys[] = {{GDN_OP_DECODE, GDN_FAMILY_GDN, GDN_LAYOUT_VK, GDN_F32, GDN_F32, K},
                          {GDN_OP_RECURRENT, GDN_FAMILY_GDN, GDN_LAYOUT_VK, GDN_F32, GDN_F32, K},
                          {GDN_OP_COPY_STATE, 0, 0, 0, 0, 0}};
  gdn_context_options options{};
  options.size = sizeof options;
  options.flags = GDN_PRIMARY_CONTEXT;
  gdn_context *made = nullptr;
  check(gdn_context_create(nullptr, keys, 3, &options, &made), "gdn_context_create");
  const Context context(made);
  open_driver();
  void *stream = nullptr;
  done(cuda.stream(&stream, 0), "cuStreamCreate");

  const Layer layer;
  const std::vector<float> states = gaussian(SLOTS * STATE, 0.1f);
  Reference want{{states.begin(), states.end()}, std::vector<double>(N * HV * V)};
  const std::vector<int32_t> slot_of{4, 0, 2};
  const gdn_pool pool = gdn_pool_packed(upload(states.data(), states.size() * sizeof(float)), GDN_F32, SLOTS, SHAPE);
  const gdn_table slots = gdn_table_packed(upload(slot_of.data(), N * sizeof(int32_t)), GDN_I32, N, 1);
  const std::vector<float> nothing(N * T * HV * V, NAN);
  const gdn_rows out = gdn_rows_packed(upload(nothing.data(), nothing.size() * sizeof(float)), GDN_F32, N * T, HV * V);
  bool right = true;

  // One token for each sequence, states updated in place.
  const Tokens first(N);
  gdn_decode_call decode{};
  decode.size = sizeof decode;
  decode.batch = N;
  decode.inputs = layer.inputs(first);
  decode.state = pool;
  decode.slots = slots;
  decode.out = out;
  check(gdn_decode(context.get(), &decode, nullptr, stream), "gdn_decode");
  done(cuda.synchronize(stream), "decode");
  for (uint32_t n = 0; n < N; n++) layer.step(first, n, want.slot(slot_of[n]), &want.out[n * HV * V]);
  right &= report("decode", std::max(difference(out.address, want.out), difference(pool.address, want.pool)));

  // Drafts of four tokens: the state after each goes to a buffer, the pool is only read.
  const Tokens draft(N * T);
  const gdn_intermediate buffer = gdn_intermediate_packed(
      upload(std::vector<float>(N * T * STATE).data(), N * T * STATE * sizeof(float)), GDN_F32, N, T, SHAPE);
  gdn_recurrent_call verify{};
  verify.size = sizeof verify;
  verify.inputs = layer.inputs(draft);
  verify.tokens.kind = GDN_TOKENS_EACH;
  verify.tokens.batch = N;
  verify.tokens.count = T;
  verify.source.kind = GDN_SOURCE_SLOTS;
  verify.source.pool = pool;
  verify.source.slots = slots;
  verify.target.kind = GDN_TARGET_NOWHERE;
  verify.intermediate = buffer;
  verify.out = out;
  check(gdn_recurrent(context.get(), &verify, nullptr, stream), "gdn_recurrent");
  done(cuda.synchronize(stream), "verify");
  const std::vector<int32_t> accepted{2, 0, 4};
  want.out.resize(N * T * HV * V);
  std::vector<double> after = want.pool; // what the commit will leave
  for (uint32_t n = 0; n < N; n++) {
    std::vector<double> state(want.slot(slot_of[n]), want.slot(slot_of[n]) + STATE);
    for (uint32_t t = 0; t < T; t++) {
      layer.step(draft, n * T + t, state.data(), &want.out[(n * T + t) * HV * V]);
      if (int32_t(t) + 1 == accepted[n]) std::copy(state.begin(), state.end(), &after[slot_of[n] * STATE]);
    }
  }
  right &= report("verify", std::max(difference(out.address, want.out), difference(pool.address, want.pool)));

  // The state after the last accepted token becomes the sequence's.
  gdn_commit_state_call commit{};
  commit.size = sizeof commit;
  commit.batch = N;
  commit.shape = SHAPE;
  commit.intermediate = buffer;
  commit.accepted = gdn_table_packed(upload(accepted.data(), N * sizeof(int32_t)), GDN_I32, N, 1);
  commit.state = pool;
  commit.slots = slots;
  check(gdn_commit_state(context.get(), &commit, nullptr, stream), "gdn_commit_state");
  done(cuda.synchronize(stream), "commit");
  want.pool = after;
  right &= report("commit", difference(pool.address, want.pool));

  // The decode as a graph, replayed three times. Tables are read when it runs: the second sequence is padding now.
  gdn_prepared *step = nullptr;
  check(gdn_decode_prepare(context.get(), &decode, nullptr, &step), "gdn_decode_prepare");
  const Prepared prepared(step);
  void *graph = nullptr, *executable = nullptr;
  done(cuda.begin_capture(stream, 1 /* thread local */), "cuStreamBeginCapture");
  check(gdn_prepared_launch(prepared.get(), stream), "gdn_prepared_launch");
  done(cuda.end_capture(stream, &graph), "cuStreamEndCapture");
  done(cuda.instantiate(&executable, graph, 0), "cuGraphInstantiate");
  const std::vector<int32_t> padded{4, -1, 2};
  done(cuda.to_device(slots.address, padded.data(), N * sizeof(int32_t)), "cuMemcpyHtoD");
  want.out.resize(N * HV * V);
  std::fill(want.out.begin(), want.out.end(), 0.0);
  for (int replay = 0; replay < 3; replay++) {
    done(cuda.launch_graph(executable, stream), "cuGraphLaunch");
    for (uint32_t n = 0; n < N; n++)
      if (padded[n] >= 0) layer.step(first, n, want.slot(padded[n]), &want.out[n * HV * V]);
  }
  done(cuda.synchronize(stream), "graph");
  right &= report("graph", std::max(difference(out.address, want.out), difference(pool.address, want.pool)));

  char text[256];
  gdn_prepared_plan(prepared.get(), text, sizeof text);
  std::printf("%s\n", text);
  return right ? 0 : 1;
}
