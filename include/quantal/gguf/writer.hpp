// GGUF v3 writer: everything planned first, tensor bytes appended in order, the file visible only when complete.
#pragma once

#include "quantal/atomic_file.hpp"
#include "quantal/gguf/reader.hpp"

namespace quantal::gguf {

class writer {
 public:
  /// Plans a file: `tensors` in output order (name, type, n_dims and ne are used). Writes the header at once.
  static result<writer> create(const std::filesystem::path& path, const metadata& meta,
                               std::vector<tensor_info> tensors) {
    const auto alignment = alignment_of(path, meta);
    if (!alignment) return alignment.error();
    if (auto planned = plan(path, tensors, *alignment); !planned) return planned.error();
    auto file = atomic_file::create(path);
    if (!file) return file.error();
    writer w(std::move(*file), path.string(), std::move(tensors), *alignment);
    if (!w.tensors_.empty()) {  // the header is small beside them
      const auto& last = w.tensors_.back();
      if (auto r = w.file_.reserve(last.offset + last.nbytes); !r) return r.error();
    }
    if (auto h = w.write_header(meta); !h) return h.error();
    return w;
  }

  /// Bytes of the file that create() with the same arguments plans.
  static result<std::uint64_t> file_bytes(const std::filesystem::path& path, const metadata& meta,
                                          std::vector<tensor_info> tensors) {
    const auto alignment = alignment_of(path, meta);
    if (!alignment) return alignment.error();
    if (auto planned = plan(path, tensors, *alignment); !planned) return planned.error();
    std::uint64_t bytes = header(meta, tensors, *alignment).size();
    if (!tensors.empty())
      bytes += tensors.back().offset + *checked_round_up(tensors.back().nbytes, *alignment);
    return bytes;
  }

  /// The plan with sizes and offsets.
  const std::vector<tensor_info>& tensors() const noexcept { return tensors_; }

  /// Next bytes of the current tensor; a tensor may come in any number of pieces, in order.
  result<void> append(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (current_ == tensors_.size()) return error{path_ + ": more tensor data than planned"};
      const auto& t = tensors_[current_];
      const auto take = std::min<std::uint64_t>(bytes.size(), t.nbytes - written_);
      if (auto w = file_.write(bytes.first(static_cast<std::size_t>(take))); !w) return w;
      written_ += take;
      bytes = bytes.subspan(static_cast<std::size_t>(take));
      if (auto s = skip_complete(); !s) return s;
    }
    return {};
  }

  /// Syncs and renames; an error if tensor data is missing.
  result<void> finish() {
    if (auto s = check_complete(); !s) return s;
    return file_.commit();
  }

  /// Finishes the shards of a model: all become visible or none, and none that one replaces is lost.
  static result<void> finish_all(std::span<writer> shards) {
    std::vector<atomic_file*> files;
    for (auto& w : shards) {
      if (auto s = w.check_complete(); !s) return s;
      files.push_back(&w.file_);
    }
    return atomic_file::commit_all(files);
  }

 private:
  writer(atomic_file file, std::string path, std::vector<tensor_info> tensors, std::uint64_t alignment)
      : file_(std::move(file)), path_(std::move(path)), tensors_(std::move(tensors)), alignment_(alignment) {}

  static result<std::uint64_t> alignment_of(const std::filesystem::path& path, const metadata& meta) {
    if (!meta.contains("general.alignment")) return std::uint64_t{default_alignment};
    const auto a = meta.integer("general.alignment", 1, static_cast<std::int64_t>(max_alignment));
    if (!a) return error{path.string() + ": " + a.error().message};
    const auto alignment = static_cast<std::uint64_t>(*a);
    if (alignment & (alignment - 1))
      return error{path.string() + ": general.alignment is not a power of two"};
    return alignment;
  }

  static result<void> plan(const std::filesystem::path& path, std::vector<tensor_info>& tensors,
                           std::uint64_t alignment) {
    std::unordered_set<std::string> names;
    std::uint64_t offset = 0;
    for (auto& t : tensors) {
      const std::string where = path.string() + ": tensor '" + detail::printable(t.name) + "'";
      if (t.name.empty() || t.name.size() > 63) return error{where + ": name must have 1 to 63 bytes"};
      if (!names.insert(t.name).second) return error{where + ": duplicate tensor"};
      const auto bytes = tensor_bytes(t.type, t.ne);
      if (!bytes) return error{where + ": " + type_name(t.type) + " cannot hold this shape"};
      t.nbytes = *bytes;
      t.offset = offset;
      t.shard = 0;
      const auto padded = checked_round_up(t.nbytes, alignment);
      if (!padded || __builtin_add_overflow(offset, *padded, &offset))
        return error{where + ": file size overflows"};
    }
    return {};
  }

  result<void> check_complete() {
    if (auto s = skip_complete(); !s) return s;
    if (current_ != tensors_.size())
      return error{path_ + ": tensor '" + tensors_[current_].name + "' is incomplete"};
    return {};
  }

  template <class T>
  static void put(std::string& out, const T& v) {
    out.append(reinterpret_cast<const char*>(&v), sizeof v);
  }
  static void put(std::string& out, const std::string& s) {
    put(out, static_cast<std::uint64_t>(s.size()));
    out += s;
  }
  static void put(std::string& out, bool b) { out += static_cast<char>(b); }
  static void put(std::string& out, const array& a) {
    put(out, static_cast<std::uint32_t>(element_type_of(a)));
    std::visit(
        [&](const auto& v) {
          put(out, static_cast<std::uint64_t>(v.size()));
          for (const auto& x : v) put(out, static_cast<typename std::decay_t<decltype(v)>::value_type>(x));
        },
        a);
  }

  static std::string header(const metadata& meta, const std::vector<tensor_info>& tensors,
                            std::uint64_t alignment) {
    std::string out = "GGUF";
    put(out, std::uint32_t{3});
    put(out, static_cast<std::uint64_t>(tensors.size()));
    put(out, static_cast<std::uint64_t>(meta.size()));
    for (const auto& [key, v] : meta.items()) {
      put(out, key);
      put(out, static_cast<std::uint32_t>(type_of(v)));
      std::visit([&](const auto& x) { put(out, x); }, v);
    }
    for (const auto& t : tensors) {
      put(out, t.name);
      const int n_dims = dims_to_write(t);
      put(out, static_cast<std::uint32_t>(n_dims));
      for (int d = 0; d < n_dims; ++d)
        put(out, static_cast<std::uint64_t>(t.ne[static_cast<std::size_t>(d)]));
      put(out, t.type);
      put(out, t.offset);
    }
    out.resize(static_cast<std::size_t>(*checked_round_up(out.size(), alignment)), '\0');
    return out;
  }

  result<void> write_header(const metadata& meta) {
    if (auto w = file_.write(header(meta, tensors_, alignment_)); !w) return w;
    return skip_complete();
  }

  /// Trailing dimensions of 1 are dropped, as every other writer does.
  static int dims_to_write(const tensor_info& t) {
    int n = 4;
    while (n > 1 && t.ne[static_cast<std::size_t>(n - 1)] == 1) --n;
    return n;
  }

  /// Pads and leaves every tensor whose bytes are all there.
  result<void> skip_complete() {
    while (current_ < tensors_.size() && written_ == tensors_[current_].nbytes) {
      const std::string pad(static_cast<std::size_t>(*checked_round_up(written_, alignment_) - written_),
                            '\0');
      if (auto w = file_.write(pad); !w) return w;
      written_ = 0;
      ++current_;
    }
    return {};
  }

  atomic_file file_;
  std::string path_;
  std::vector<tensor_info> tensors_;
  std::uint64_t alignment_;
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace quantal::gguf
