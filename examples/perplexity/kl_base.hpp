// Reference distributions for KL divergence: the file that --kl-divergence-base writes and reads (quantize.md
// section 8). Log-probabilities are stored as 16-bit codes per token, so a model against itself is near 0, not 0.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

#include "quantal/atomic_file.hpp"
#include "scoring.hpp"

namespace quantal::mla {

/// One distribution as the file holds it.
class kl_codec {
 public:
  explicit kl_codec(std::int64_t vocabulary)
      : n_(vocabulary), record_(static_cast<std::size_t>(words(vocabulary))) {}

  /// u16 words of one record: scale and minimum as floats, the codes, a pad word for odd vocabularies.
  static std::int64_t words(std::int64_t vocabulary) noexcept { return 2 * ((vocabulary + 1) / 2) + 4; }

  std::span<std::uint16_t> record() noexcept { return record_; }

  /// Logits to the record. They are finite.
  void encode(const float* logits) {
    float top = logits[0], low = logits[0];
    for (std::int64_t i = 1; i < n_; ++i) top = std::max(top, logits[i]), low = std::min(low, logits[i]);
    low = std::max(low, top - range);
    const float scale = (top - low) / 65535.0f;
    const auto min_log_prob = static_cast<float>(low - log_sum_exp(logits, n_));
    std::memcpy(record_.data(), &scale, 4);
    std::memcpy(record_.data() + 2, &min_log_prob, 4);
    for (std::int64_t i = 0; i < n_; ++i)
      record_[static_cast<std::size_t>(4 + i)] =
          scale > 0 && logits[i] > low
              ? static_cast<std::uint16_t>(std::min(65535L, std::lround((logits[i] - low) / scale)))
              : 0;
  }

  /// The record to log-probabilities. Errors: they are no distribution.
  result<void> decode(std::vector<float>& log_probs) const {
    float scale, low;
    std::memcpy(&scale, record_.data(), 4);
    std::memcpy(&low, record_.data() + 2, 4);
    if (!std::isfinite(scale) || !std::isfinite(low)) return error{"the record holds a NaN or an infinity"};
    log_probs.resize(static_cast<std::size_t>(n_));
    double total = 0;
    for (std::size_t i = 0; i < log_probs.size(); ++i) {
      log_probs[i] = scale * static_cast<float>(record_[4 + i]) + low;
      total += std::exp(log_probs[i]);
    }
    // Tokens below the bound are stored as the bound; the rest is rounding.
    const double most = 1.01 + static_cast<double>(n_) * std::exp(-range);
    if (!(total > 0.99 && total < most))
      return error{"the probabilities of a record add up to " + std::to_string(total) + ", not to 1"};
    return {};
  }

 private:
  /// Codes cover this many nats below the best token; anything less likely is stored as the bound.
  static constexpr float range = 16.0f;
  std::int64_t n_;
  std::vector<std::uint16_t> record_;
};

struct kl_header {
  std::int32_t context, vocabulary, chunks;
  std::vector<std::int32_t> tokens;  ///< chunks * context; before BOS takes the place of a chunk's first one

  std::int64_t scored() const { return context - 1 - first_scored(context); }
  std::span<const std::int32_t> chunk(std::int64_t i) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(i * context),
                                     static_cast<std::size_t>(context));
  }
};

class kl_writer {
 public:
  static result<kl_writer> create(const std::filesystem::path& path, const kl_header& h) {
    auto f = atomic_file::create(path);
    if (!f) return f.error();
    kl_writer w(std::move(*f), h.vocabulary);
    std::string head = "_logits_";
    for (const auto v : {h.context, h.vocabulary, h.chunks})
      head.append(reinterpret_cast<const char*>(&v), 4);
    head.append(reinterpret_cast<const char*>(h.tokens.data()), h.tokens.size() * 4);
    if (auto r = w.file_.write(head); !r) return r.error();
    return w;
  }

  /// The next scored position.
  result<void> add(const float* logits) {
    codec_.encode(logits);
    return file_.write(std::as_bytes(codec_.record()));
  }
  result<void> finish() { return file_.commit(); }

 private:
  kl_writer(atomic_file f, std::int64_t n) : file_(std::move(f)), codec_(n) {}
  atomic_file file_;
  kl_codec codec_;
};

class kl_reader {
 public:
  /// Sizes in the header are checked against the file before anything is allocated.
  static result<kl_reader> open(const std::filesystem::path& path) {
    const std::string name = path.string();
    std::error_code failed;
    if (std::filesystem::is_directory(path, failed)) return error{name + ": is a folder"};
    std::ifstream file(path, std::ios::binary);
    if (!file) return error{name + ": cannot open"};
    const std::uintmax_t size = std::filesystem::file_size(path, failed);
    if (failed) return error{name + ": not a regular file"};
    kl_header h{};
    char magic[8] = {};
    file.read(magic, 8);
    for (auto* v : {&h.context, &h.vocabulary, &h.chunks}) file.read(reinterpret_cast<char*>(v), 4);
    if (!file || std::memcmp(magic, "_logits_", 8) != 0)
      return error{name + ": not a file of reference logits"};
    constexpr std::int32_t most = 1 << 24;
    if (h.context < 4 || h.vocabulary < 1 || h.chunks < 1 || h.context > most || h.vocabulary > most ||
        h.chunks > most)
      return error{name + ": impossible sizes in the header: " + std::to_string(h.chunks) + " chunks of " +
                   std::to_string(h.context) + " tokens of a vocabulary of " + std::to_string(h.vocabulary)};
    const double want =
        20.0 + 4.0 * h.chunks * h.context +
        2.0 * static_cast<double>(kl_codec::words(h.vocabulary)) * h.chunks * static_cast<double>(h.scored());
    if (static_cast<double>(size) != want) {
      char implied[32];
      std::snprintf(implied, sizeof implied, "%.0f", want);
      return error{name + ": " + std::to_string(size) + " bytes where the header implies " + implied +
                   (static_cast<double>(size) < want ? "; is it cut off?" : "")};
    }
    h.tokens.resize(static_cast<std::size_t>(h.chunks) * static_cast<std::size_t>(h.context));
    file.read(reinterpret_cast<char*>(h.tokens.data()), static_cast<std::streamsize>(h.tokens.size() * 4));
    for (std::size_t i = 0; i < h.tokens.size(); ++i)
      if (h.tokens[i] < 0 || h.tokens[i] >= h.vocabulary)
        return error{name + ": chunk " + std::to_string(i / static_cast<std::size_t>(h.context)) +
                     ": token " + std::to_string(h.tokens[i]) + " is outside the vocabulary of " +
                     std::to_string(h.vocabulary)};
    return kl_reader(std::move(h), std::move(file), name);
  }

  /// Log-probabilities of the next scored position. Errors name the chunk and the position.
  result<void> next(std::vector<float>& log_probs) {
    const auto bytes = std::as_writable_bytes(codec_.record());
    file_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    const std::string where = path_ + ": chunk " + std::to_string(read_ / header.scored()) + ", position " +
                              std::to_string(first_scored(header.context) + read_ % header.scored()) + ": ";
    ++read_;
    if (!file_) return error{where + "cannot be read"};
    if (auto r = codec_.decode(log_probs); !r) return error{where + r.error().message};
    return {};
  }

  kl_header header;

 private:
  kl_reader(kl_header h, std::ifstream file, std::string path)
      : header(std::move(h)), file_(std::move(file)), codec_(header.vocabulary), path_(std::move(path)) {}

  std::ifstream file_;
  kl_codec codec_;
  std::string path_;
  std::int64_t read_ = 0;
};

}  // namespace quantal::mla
