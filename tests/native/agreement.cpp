// Every instruction set of this processor computes what the portable kernels do (which the Python
// tests hold against numpy): linear layers, and a small random Whisper from mel to logits.
// Run under qemu-user for Arm. Prints what differs; exit code 1.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"

using namespace whisper_npu;

namespace {

std::mt19937 random_bits(1);
int failures = 0;

std::vector<float> random_values(size_t n, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random_bits);
  return values;
}

void compare(const std::string& what, const std::vector<float>& a, const std::vector<float>& b,
             float tolerance) {
  // all results are sums of numbers of order one: their rounding stays when they cancel
  float largest = 1, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::fmax(largest, std::fabs(b[i]));
    difference = std::fmax(difference, std::fabs(a[i] - b[i]));
    if (std::isnan(a[i]) != std::isnan(b[i])) difference = INFINITY;
  }
  const bool good = difference <= tolerance * largest;
  if (!good) ++failures;
  std::printf("%s %s: %.1e of %.1e\n", good ? "ok  " : "FAIL", what.c_str(), (double)difference,
              (double)largest);
}

// Owns what a model refers to.
struct Store {
  std::deque<std::vector<float>> floats;
  std::deque<std::vector<uint8_t>> panels;
  std::deque<std::vector<int32_t>> sums;

  const float* values(size_t n, float scale) { return floats.emplace_back(random_values(n, scale)).data(); }

  Linear linear(Kind kind, int n, int k) {
    Linear layer = {kind, (n + 63) / 64 * 64, k, nullptr, nullptr, nullptr, nullptr};
    std::vector<float> weight = random_values((size_t)layer.n * k, 1 / std::sqrt((float)k));
    std::fill(weight.begin() + (ptrdiff_t)n * k, weight.end(), 0.0f);
    std::vector<float>& scale = floats.emplace_back(layer.n);
    layer.panels = panels.emplace_back(packed_bytes(kind, layer.n, k)).data();
    layer.sums = sums.emplace_back(layer.n).data();
    layer.scale = scale.data();
    pack(kind, weight.data(), layer.n, k, panels.back().data(), scale.data(), sums.back().data());
    std::vector<float>& bias = floats.emplace_back(random_values((size_t)layer.n, 0.1f));
    std::fill(bias.begin() + n, bias.end(), 0.0f);
    layer.bias = bias.data();
    return layer;
  }

  Norm norm(const Model& m) {
    Norm norm = {values((size_t)m.stride, 1), values((size_t)m.stride, 0.1f)};
    for (int i = m.width; i < m.stride; ++i)
      floats[floats.size() - 2][i] = floats[floats.size() - 1][i] = 0;
    return norm;
  }
};

Model random_model(Store& store, Kind encoder, Kind decoder) {
  Model m = {};
  m.n_mels = 20, m.n_ctx = 75, m.width = m.stride = 64, m.hidden = 256;
  m.audio_heads = m.text_heads = 3, m.head = 32, m.n_text_ctx = 40, m.n_vocab = 203;
  m.cache = decoder;
  const int heads = 3 * 32;
  const Kind stem = encoder == Kind::kF32 ? Kind::kF32 : Kind::kF16;
  m.conv1 = store.linear(stem, m.stride, 3 * 32);
  m.conv2 = store.linear(stem, m.stride, 3 * m.stride);
  m.audio_positions = store.values((size_t)m.n_ctx * m.stride, 1);
  m.text_positions = store.values((size_t)m.n_text_ctx * m.stride, 1);
  for (bool text : {false, true, true}) {
    const Kind kind = text ? decoder : encoder;
    Layer layer = {};
    layer.norm = store.norm(m), layer.cross_norm = store.norm(m), layer.mlp_norm = store.norm(m);
    layer.qkv = store.linear(kind, 3 * heads, m.stride);
    layer.out = store.linear(kind, m.stride, heads);
    layer.cross_query = store.linear(kind, heads, m.stride);
    layer.cross_kv = store.linear(encoder, 2 * heads, m.stride);
    layer.cross_out = store.linear(kind, m.stride, heads);
    layer.fc1 = store.linear(kind, m.hidden, m.stride);
    layer.fc2 = store.linear(kind, m.stride, m.hidden);
    (text ? m.decoder : m.encoder).push_back(layer);
  }
  m.encoder_norm = store.norm(m), m.decoder_norm = store.norm(m);
  m.vocabulary = store.linear(decoder, m.n_vocab, m.stride);
  m.embedding = store.values((size_t)m.n_vocab * m.width, 1);
  return m;
}

// All that a decoding shows: logits of a prompt, of beams that fork and cross, and alignment.
std::vector<float> decode(const Kernels& kernels, const Model& m, int threads,
                          const std::vector<float>& mel) {
  Pool pool(threads);
  std::vector<float> all((size_t)m.n_ctx * m.stride);
  const std::unique_ptr<Encoder> encoder(kernels.encoder(pool, m));
  encoder->encode(mel.data(), m.n_ctx, all.data(), nullptr);
  const std::unique_ptr<Encoded> encoded(kernels.project(pool, m, all.data(), m.n_ctx, nullptr));
  const Head aligned[] = {{0, 2}, {1, 0}};
  const std::unique_ptr<Session> session(kernels.session(pool, m, *encoded, 4, aligned, 2));
  const std::unique_ptr<Decoder> decoder(kernels.decoder(pool, m));
  const auto step = [&](const std::vector<int64_t>& tokens, int n) {
    std::vector<float> logits((size_t)session->rows() * n * m.n_vocab);
    const Step step = {session.get(), tokens.data(), n, true, logits.data()};
    decoder->step(&step, 1);
    all.insert(all.end(), logits.begin(), logits.end());
  };
  step({1, 2, 3, 4, 5, 6, 7}, 7);
  const int fork[] = {0, 0, 0, 0}, cross[] = {3, 1, 1};
  session->reorder(fork, 4);
  step({10, 20, 30, 40}, 1);
  session->reorder(cross, 3);
  step({1, 2, 3, 4, 5, 6}, 2);
  std::vector<float> scores((size_t)2 * session->length() * m.n_ctx);
  session->alignment(scores.data());
  all.insert(all.end(), scores.begin(), scores.end());
  return all;
}

void compare_linear(const Kernels& kernels, const Kernels& portable, Kind kind) {
  for (int rows : {1, 2, 3, 4, 5, 6, 7, 13})
    for (int k : {1, 4, 30, 129})
      for (int n : {1, 16, 47, 130}) {
        Store store;
        Pool pool(rows % 3 + 1);
        const Linear layer = store.linear(kind, n, (k + 15) / 16 * 16);
        std::vector<float> x = random_values((size_t)rows * k, 1);
        if (rows == 7) x[(size_t)k * 3] = NAN;
        std::vector<float> a((size_t)rows * n), b(a);
        kernels.linear(pool, x.data(), rows, k, layer, n, rows % 2, nullptr, a.data());
        portable.linear(pool, x.data(), rows, k, layer, n, rows % 2, nullptr, b.data());
        // NaN rows agree; the rest is compared without them
        for (size_t i = 0; i < a.size(); ++i)
          if (std::isnan(a[i]) && std::isnan(b[i])) a[i] = b[i] = 0;
        const std::string size = std::to_string(rows) + "x" + std::to_string(k) + "x" + std::to_string(n);
        compare(std::string(kernels.name) + " linear " + std::to_string((int)kind) + " " + size, a, b,
                kind == Kind::kF16 ? 1e-2f : 1e-5f);
      }
}

}  // namespace

int main() {
  const Kernels* const* available = available_kernels();
  const Kernels* portable = nullptr;
  for (const Kernels* const* k = available; *k; ++k) portable = *k;  // the last
  for (const Kernels* const* k = available; *k; ++k) {
    for (Kind kind : {Kind::kF32, Kind::kF16, Kind::kInt8}) compare_linear(**k, *portable, kind);
    const struct { Kind encoder, decoder; float tolerance; } cases[] = {
        {Kind::kF32, Kind::kF32, 1e-4f},
        {Kind::kF16, Kind::kF16, 0.05f},
        {Kind::kF16, Kind::kInt8, 0.1f},
        {Kind::kInt8, Kind::kInt8, 0.1f}};
    for (const auto& c : cases) {
      Store store;
      const Model m = random_model(store, c.encoder, c.decoder);
      const std::vector<float> mel = random_values((size_t)m.n_mels * 2 * m.n_ctx, 1);
      for (int threads : {1, 3})
        compare(std::string((*k)->name) + " decoding", decode(**k, m, threads, mel),
                decode(*portable, m, 1, mel), c.tolerance);
    }
  }
  std::printf("%d differ\n", failures);
  return failures > 0;
}
