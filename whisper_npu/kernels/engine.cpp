#include "engine.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "arrays.h"
#include "shown.h"

namespace whisper_npu {
namespace {

using namespace nb::literals;

// Finds weights by name in a dictionary of arrays, and checks their sizes.
class Weights {
 public:
  explicit Weights(nb::dict arrays) : arrays_(std::move(arrays)) {}

  template <class T>
  const T* array(const std::string& name, size_t n) const {
    require(arrays_.contains(name.c_str()), "no weights named " + name);
    nb::ndarray<const T, nb::c_contig, nb::device::cpu> found;
    require(nb::try_cast(arrays_[name.c_str()], found), name + " has another type or order");
    require(found.size() == n, name + " has another size");
    return found.data();
  }

  // Whether values of this type have that name; 16-bit floats are there by their bits.
  template <class T>
  bool holds(const std::string& name) const {
    require(arrays_.contains(name.c_str()), "no weights named " + name);
    nb::ndarray<nb::ro, nb::device::cpu> found;
    require(nb::try_cast(arrays_[name.c_str()], found), name + " is not an array");
    return found.dtype() == nb::dtype<T>();
  }

  // Float32, or 16-bit floats.
  const void* floats(const std::string& name, size_t n) const {
    if (holds<float>(name)) return array<float>(name, n);
    return array<uint16_t>(name, n);
  }

  // A layer of n outputs (n_padded stored) and k inputs.
  Linear linear(const std::string& name, int n, int k) const {
    Linear layer = {};
    layer.n = (n + 63) / 64 * 64;
    layer.k = k;
    const std::string panels = name + ".panels";
    const size_t size = (size_t)layer.n * (size_t)k;
    layer.kind = holds<float>(panels) ? Kind::kF32 : holds<uint16_t>(panels) ? Kind::kF16 : Kind::kInt8;
    layer.panels = layer.kind == Kind::kInt8 ? array<int8_t>(panels, size) : floats(panels, size);
    const size_t scales = layer.kind == Kind::kInt8 ? (size_t)layer.n : 0;
    layer.scale = array<float>(name + ".scale", scales);
    layer.sums = array<int32_t>(name + ".sums", scales);
    layer.bias = array<float>(name + ".bias", (size_t)layer.n);
    return layer;
  }

  Norm norm(const std::string& name, int stride) const {
    return {array<float>(name + ".weight", (size_t)stride), array<float>(name + ".bias", (size_t)stride)};
  }

  Layer layer(const std::string& name, const Model& m, bool cross) const {
    const int heads = m.head * (cross ? m.text_heads : m.audio_heads);
    Layer layer = {};
    layer.norm = norm(name + ".norm", m.stride);
    layer.qkv = linear(name + ".qkv", 3 * heads, m.stride);
    layer.out = linear(name + ".out", m.stride, heads);
    if (cross) {
      layer.cross_norm = norm(name + ".cross_norm", m.stride);
      layer.cross_query = linear(name + ".cross_query", heads, m.stride);
      layer.cross_kv = linear(name + ".cross_kv", 2 * heads, m.stride);
      layer.cross_out = linear(name + ".cross_out", m.stride, heads);
    }
    layer.mlp_norm = norm(name + ".mlp_norm", m.stride);
    layer.fc1 = linear(name + ".fc1", m.hidden, m.stride);
    layer.fc2 = linear(name + ".fc2", m.stride, m.hidden);
    return layer;
  }

 private:
  nb::dict arrays_;
};

// The encoder's linear layers share one format, its convolutions that of attention; the decoder's
// share one, with keys and values in it or, for int8, in 16 bits as well.
void check_formats(const Model& m) {
  const Kind encoder = m.encoder[0].qkv.kind, decoder = m.vocabulary.kind;
  const Kind stem = encoder == Kind::kF32 ? Kind::kF32 : Kind::kF16;
  bool same = m.conv1.kind == stem && m.conv2.kind == stem;
  for (const Layer& layer : m.encoder)
    for (const Linear* l : {&layer.qkv, &layer.out, &layer.fc1, &layer.fc2})
      same = same && l->kind == encoder;
  for (const Layer& layer : m.decoder) {
    for (const Linear* l : {&layer.qkv, &layer.out, &layer.cross_query, &layer.cross_out, &layer.fc1,
                            &layer.fc2})
      same = same && l->kind == decoder;
    same = same && layer.cross_kv.kind == m.decoder[0].cross_kv.kind;
  }
  require(same && (m.cache == decoder || (decoder == Kind::kInt8 && m.cache == Kind::kF16)),
          "the formats of the weights do not go together");
}

int size_of(const nb::dict& sizes, const char* name) {
  require(sizes.contains(name), std::string("no size named ") + name);
  const int value = nb::cast<int>(sizes[name]);
  require(value > 0 && value < (1 << 20), std::string(name) + " is out of range");
  return value;
}

Model read_model(const nb::dict& sizes, const Weights& weights, Kind cache) {
  Model m = {};
  m.n_mels = size_of(sizes, "n_mels");
  m.n_ctx = size_of(sizes, "n_ctx");
  m.width = size_of(sizes, "width");
  m.audio_heads = size_of(sizes, "audio_heads");
  m.text_heads = size_of(sizes, "text_heads");
  m.head = size_of(sizes, "head");
  m.n_text_ctx = size_of(sizes, "n_text_ctx");
  m.n_vocab = size_of(sizes, "n_vocab");
  require(m.head % 16 == 0 && m.head <= 1024, "head is a multiple of 16");
  m.stride = (m.width + 63) / 64 * 64;
  m.hidden = (4 * m.width + 63) / 64 * 64;
  m.cache = cache;
  m.conv1 = weights.linear("conv1", m.stride, 3 * ((m.n_mels + 15) / 16 * 16));
  m.conv2 = weights.linear("conv2", m.stride, 3 * m.stride);
  m.audio_positions = weights.array<float>("audio_positions", (size_t)m.n_ctx * m.stride);
  m.text_positions = weights.array<float>("text_positions", (size_t)m.n_text_ctx * m.stride);
  for (int i = 0; i < size_of(sizes, "audio_layers"); ++i)
    m.encoder.push_back(weights.layer("encoder." + std::to_string(i), m, false));
  for (int i = 0; i < size_of(sizes, "text_layers"); ++i)
    m.decoder.push_back(weights.layer("decoder." + std::to_string(i), m, true));
  m.encoder_norm = weights.norm("encoder_norm", m.stride);
  m.decoder_norm = weights.norm("decoder_norm", m.stride);
  m.vocabulary = weights.linear("vocabulary", m.n_vocab, m.stride);
  m.embedding_is_fp16 = weights.holds<uint16_t>("embedding");
  m.embedding = weights.floats("embedding", (size_t)m.n_vocab * m.width);
  check_formats(m);
  return m;
}

class Engine {
 public:
  Engine(const std::string& isa, const nb::dict& sizes, nb::dict weights, int cache, int threads,
         const std::vector<int>& pinned)
      : kernels(kernels_named(isa)),
        arrays_(weights),
        model(read_model(sizes, Weights(weights), checked_kind(cache))),
        pool(checked_threads(threads), checked_cores(pinned)),
        encoder_(kernels.encoder(pool, model)),
        decoder_(kernels.decoder(pool, model)) {}

  static Kind checked_kind(int kind) {
    require(kind >= 0 && kind <= 2, "kind is 0, 1 or 2");
    return (Kind)kind;
  }

  static const std::vector<int>& checked_cores(const std::vector<int>& cores) {
    for (int core : cores) require(core >= 0 && core < 1024, "no such core");
    return cores;
  }

  void check_process() const {
    require(process_ == getpid(), "the engine was opened before a fork: open it again");
  }

  Owned<float> features(Matrix mel, Shown* shown) {
    check_process();
    const size_t positions = mel.shape(1) / 2;
    require(mel.shape(0) == (size_t)model.n_mels && mel.shape(1) == 2 * positions && positions > 0 &&
                positions <= (size_t)model.n_ctx,
            "mel is (n_mels, frames), an even number of frames and at most 2 n_ctx");
    Owned<float> out(positions * model.stride);
    nb::gil_scoped_release release;
    std::lock_guard<std::mutex> lock(encoding_);  // one working memory
    encoder_->encode(mel.data(), (int)positions, out.data, shown);
    return out;
  }

  void step(const std::vector<Step>& steps) {
    nb::gil_scoped_release release;
    std::lock_guard<std::mutex> lock(decoding_);
    decoder_->step(steps.data(), (int)steps.size());
  }

  const Kernels& kernels;

 private:
  nb::object arrays_;  // whose memory the model refers to

 public:
  const Model model;
  Pool pool;

 private:
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Decoder> decoder_;
  std::mutex encoding_, decoding_;
  const pid_t process_ = getpid();
};

struct EncodedWindow {  // and the engine it belongs to
  std::shared_ptr<Engine> engine;
  std::shared_ptr<Encoded> encoded;
};

EncodedWindow project(const std::shared_ptr<Engine>& engine, Matrix features, Shown* shown) {
  nb::gil_scoped_release release;
  return {engine, std::shared_ptr<Encoded>(engine->kernels.project(
                      engine->pool, engine->model, features.data(), (int)features.shape(0), shown))};
}

// Keys and values that somebody else has projected: (positions, heads * width) for each layer.
EncodedWindow keep(const std::shared_ptr<Engine>& engine, const std::vector<std::pair<Matrix, Matrix>>& pairs) {
  const Model& m = engine->model;
  engine->check_process();
  require(pairs.size() == m.decoder.size(), "one pair of keys and values per decoder layer");
  std::vector<const float*> keys, values;
  const size_t positions = pairs[0].first.shape(0), width = pairs[0].first.shape(1);
  for (const auto& [key, value] : pairs) {
    for (const Matrix& x : {key, value})
      require(x.shape(0) == positions && x.shape(1) == width, "keys and values of several shapes");
    keys.push_back(key.data());
    values.push_back(value.data());
  }
  require(positions > 0 && positions <= (size_t)m.n_ctx && width % m.text_heads == 0 &&
              width / m.text_heads <= (size_t)m.head,
          "keys and values are (positions, width)");
  nb::gil_scoped_release release;
  return {engine, std::shared_ptr<Encoded>(
                      engine->kernels.keep(engine->pool, m, keys.data(), values.data(),
                                           (int)positions, (int)width / m.text_heads))};
}

using Tokens = Array<int64_t, 2>;

class Decoding {
 public:
  struct Use {  // a second thread is told, not made to wait: it may hold the GIL
    std::atomic_flag& busy;
    explicit Use(Decoding& decoding) : busy(decoding.busy_) {
      if (busy.test_and_set()) throw std::runtime_error("this session is in use by another thread");
    }
    ~Use() { busy.clear(); }
  };

  Decoding(EncodedWindow window, int beams, const std::vector<std::pair<int, int>>& aligned)
      : window_(std::move(window)), beams_(beams), n_aligned_(aligned.size()) {
    const Model& m = window_.engine->model;
    require(beams >= 1 && beams <= 64, "beams is 1 to 64");
    std::vector<Head> heads;
    for (const auto& [layer, head] : aligned) {
      require(layer >= 0 && layer < (int)m.decoder.size() && head >= 0 && head < m.text_heads,
              "an aligned head that is not there");
      heads.push_back({layer, head});
    }
    session_.reset(window_.engine->kernels.session(window_.engine->pool, m, *window_.encoded, beams,
                                                   heads.data(), (int)heads.size()));
  }

  const Engine& engine() const { return *window_.engine; }

  Step checked(const Tokens& tokens, bool every_position) const {
    const Model& m = window_.engine->model;
    const size_t rows = (size_t)session_->rows(), n = tokens.shape(1);
    require(tokens.shape(0) == rows, "one row of tokens per hypothesis");
    require(n > 0 && n <= (size_t)(m.n_text_ctx - session_->length()),
            "more tokens than the model has positions");
    for (size_t i = 0; i < rows * n; ++i)
      require(tokens.data()[i] >= 0 && tokens.data()[i] < m.n_vocab, "a token out of range");
    return {session_.get(), tokens.data(), (int)n, every_position, nullptr};
  }

  void reorder(const std::vector<int>& sources) {
    const Use use(*this);
    require(!sources.empty() && sources.size() <= (size_t)beams_, "1 to `beams` rows");
    for (int source : sources)
      require(source >= 0 && source < session_->rows(), "a source that is not a row");
    nb::gil_scoped_release release;
    session_->reorder(sources.data(), (int)sources.size());
  }

  nb::object attention() {
    const Use use(*this);
    const size_t length = (size_t)session_->length(), n_ctx = (size_t)window_.encoded->positions();
    Owned<float> scores(n_aligned_ * length * n_ctx);
    session_->alignment(scores.data);
    return scores.array({n_aligned_, length, n_ctx});
  }

 private:
  EncodedWindow window_;
  int beams_;
  size_t n_aligned_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::unique_ptr<Session> session_;
};

// One step of several sessions: logits (B, V), or (B, T, V) with every_position, for each of them.
// When it throws, no session has changed.
nb::list step(Engine& engine, const std::vector<std::tuple<Decoding*, Tokens, bool>>& together) {
  engine.check_process();
  std::deque<Decoding::Use> uses;
  std::vector<Owned<float>> logits;
  std::vector<Step> steps;
  for (const auto& [decoding, tokens, every_position] : together) {
    require(decoding && &decoding->engine() == &engine, "the session is of another engine");
    uses.emplace_back(*decoding);
    Step step = decoding->checked(tokens, every_position);
    logits.emplace_back(tokens.size() / (every_position ? 1 : step.n) * (size_t)engine.model.n_vocab);
    step.logits = logits.back().data;
    steps.push_back(step);
  }
  engine.step(steps);
  nb::list arrays;
  for (size_t i = 0; i < steps.size(); ++i) {
    const size_t rows = (size_t)steps[i].session->rows(), v = (size_t)engine.model.n_vocab;
    arrays.append(steps[i].every_position ? logits[i].array({rows, (size_t)steps[i].n, v})
                                          : logits[i].array({rows, v}));
  }
  return arrays;
}

}  // namespace

void bind_engine(nb::module_& m) {
  nb::class_<EncodedWindow>(m, "EncodedWindow");
  nb::class_<Decoding>(m, "Decoding")
      .def("reorder", &Decoding::reorder, "sources"_a)
      .def("attention", &Decoding::attention);
  nb::class_<Engine>(m, "Engine")
      .def(nb::init<const std::string&, const nb::dict&, nb::dict, int, int, const std::vector<int>&>(),
           "isa"_a, "sizes"_a, "weights"_a, "cache"_a, "threads"_a, "pinned"_a)
      .def("features",
           [](Engine& self, Matrix mel, nb::object observe) {
             const std::unique_ptr<Shown> shown = shown_to(observe, self.model, mel.shape(1) / 2);
             return self.features(mel, shown.get())
                 .array({mel.shape(1) / 2, (size_t)self.model.stride});
           },
           "mel"_a, "observe"_a = nb::none())
      .def("project",
           [](std::shared_ptr<Engine> self, Matrix features, nb::object observe) {
             self->check_process();
             require(features.shape(0) > 0 && features.shape(0) <= (size_t)self->model.n_ctx &&
                         features.shape(1) == (size_t)self->model.stride,
                     "features are (positions, width padded to 64)");
             const std::unique_ptr<Shown> shown = shown_to(observe, self->model, features.shape(0));
             return project(self, features, shown.get());
           },
           "features"_a, "observe"_a = nb::none())
      .def("keep", &keep, "pairs"_a)
      .def("step", &step, "together"_a)
      .def("session",
           [](std::shared_ptr<Engine> self, const EncodedWindow& window, int beams,
              const std::vector<std::pair<int, int>>& aligned) {
             self->check_process();
             require(window.engine == self, "the window was encoded by another engine");
             return new Decoding(window, beams, aligned);
           },
           "window"_a, "beams"_a, "aligned"_a);
}

}  // namespace whisper_npu
