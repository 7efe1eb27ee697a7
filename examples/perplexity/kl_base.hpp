// Reference distributions for KL divergence: the file that --kl-divergence-base writes and reads (quantize.md
// section 8). Log-probabilities are stored as 16-bit codes per token, so a model against itself is near 0, not 0.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "quantal/atomic_file.hpp"
#include "scoring.hpp"

namespace quantal::mla {

struct kl_header {
  std::int32_t context, vocabulary, chunks;
  std::vector<std::int32_t> tokens;  ///< chunks * context

  std::int64_t scored() const { return context - 1 - context / 2; }
  /// u16 words of one record: scale and minimum as floats, the codes, a pad word for odd vocabularies.
  std::int64_t record() const { return 2 * ((std::int64_t{vocabulary} + 1) / 2) + 4; }
};

class kl_writer {
 public:
  static result<kl_writer> create(const std::filesystem::path& path, const kl_header& h) {
    auto f = atomic_file::create(path);
    if (!f) return f.error();
    kl_writer w(std::move(*f), h.vocabulary, h.record());
    std::string head = "_logits_";
    for (const auto v : {h.context, h.vocabulary, h.chunks}) head.append(reinterpret_cast<const char*>(&v), 4);
    head.append(reinterpret_cast<const char*>(h.tokens.data()), h.tokens.size() * 4);
    if (auto r = w.file_.write(head); !r) return r.error();
    return w;
  }

  result<void> add(const float* logits) {
    float top = logits[0], low = logits[0];
    for (std::int64_t i = 1; i < n_; ++i) top = std::max(top, logits[i]), low = std::min(low, logits[i]);
    low = std::max(low, top - range);
    const float scale = (top - low) / 65535.0f;
    const auto min_log_prob = static_cast<float>(low - log_sum_exp(logits, n_));
    std::memcpy(record_.data(), &scale, 4);
    std::memcpy(record_.data() + 2, &min_log_prob, 4);
    for (std::int64_t i = 0; i < n_; ++i)
      record_[static_cast<std::size_t>(4 + i)] =
          scale > 0 && logits[i] > low ? static_cast<std::uint16_t>(std::min(65535L, std::lround((logits[i] - low) / scale))) : 0;
    return file_.write(std::as_bytes(std::span(record_)));
  }
  result<void> finish() { return file_.commit(); }

 private:
  /// Codes cover this many nats below the best token; anything less likely is stored as the bound.
  static constexpr float range = 16.0f;
  kl_writer(atomic_file f, std::int64_t n, std::int64_t record) : file_(std::move(f)), n_(n), record_(static_cast<std::size_t>(record)) {}
  atomic_file file_;
  std::int64_t n_;
  std::vector<std::uint16_t> record_;
};

class kl_reader {
 public:
  /// Sizes in the header are checked against the file before anything is allocated.
  static result<kl_reader> open(const std::filesystem::path& path) {
    kl_reader r;
    std::error_code failed;
    if (std::filesystem::is_directory(path, failed)) return error{path.string() + ": is a folder"};
    r.file_.open(path, std::ios::binary);
    if (!r.file_) return error{path.string() + ": cannot open"};
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, failed));
    char magic[8] = {};
    auto& h = r.header;
    r.file_.read(magic, 8);
    for (auto* v : {&h.context, &h.vocabulary, &h.chunks}) r.file_.read(reinterpret_cast<char*>(v), 4);
    if (failed || !r.file_ || std::memcmp(magic, "_logits_", 8) != 0) return error{path.string() + ": not a file of reference logits"};
    if (h.context < 4 || h.vocabulary < 1 || h.chunks < 1 || h.context > (1 << 24) || h.vocabulary > (1 << 24))
      return error{path.string() + ": impossible sizes in the header"};
    const double want = 20.0 + 4.0 * h.chunks * h.context + 2.0 * static_cast<double>(h.record()) * h.chunks * static_cast<double>(h.scored());
    if (static_cast<double>(size) != want) return error{path.string() + ": " + std::to_string(size) + " bytes where the header implies " + std::to_string(want)};
    h.tokens.resize(static_cast<std::size_t>(h.chunks) * static_cast<std::size_t>(h.context));
    r.file_.read(reinterpret_cast<char*>(h.tokens.data()), static_cast<std::streamsize>(h.tokens.size() * 4));
    for (const auto t : h.tokens)
      if (t < 0 || t >= h.vocabulary) return error{path.string() + ": token " + std::to_string(t) + " is outside the vocabulary"};
    r.record_.resize(static_cast<std::size_t>(h.record()));
    r.path_ = path.string();
    return r;
  }

  /// Log-probabilities of the next scored position.
  result<void> next(std::vector<float>& log_probs) {
    file_.read(reinterpret_cast<char*>(record_.data()), static_cast<std::streamsize>(record_.size() * 2));
    if (!file_) return error{path_ + ": truncated"};
    float scale, low;
    std::memcpy(&scale, record_.data(), 4);
    std::memcpy(&low, record_.data() + 2, 4);
    if (!std::isfinite(scale) || !std::isfinite(low)) return error{path_ + ": a record is not finite"};
    log_probs.resize(static_cast<std::size_t>(header.vocabulary));
    for (std::size_t i = 0; i < log_probs.size(); ++i) log_probs[i] = scale * static_cast<float>(record_[4 + i]) + low;
    return {};
  }

  kl_header header{};

 private:
  std::ifstream file_;
  std::vector<std::uint16_t> record_;
  std::string path_;
};

}  // namespace quantal::mla
