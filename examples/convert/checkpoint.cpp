#include "checkpoint.hpp"

#include <algorithm>
#include <set>

#include "strict_json.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

namespace fs = std::filesystem;

/// Tensor name -> file name.
using weight_map = std::unordered_map<std::string, std::string>;

result<weight_map> read_index(const fs::path& path) {
  const auto d = read_json_object(path);
  if (!d) return d.error();
  const auto* map = member(*d, "weight_map");
  if (!map || !map->is_object() || map->empty())
    return error{path.string() + ": 'weight_map' is missing, empty or no object"};
  weight_map out;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      return error{path.string() + ": tensor " + text::in_quotes(tensor) + ": its file is no string"};
    const auto& name = file.get_ref<const std::string&>();
    if (name.empty() || name.find('/') != std::string::npos || name.find('\0') != std::string::npos ||
        !name.ends_with(".safetensors"))
      return error{path.string() + ": tensor " + text::in_quotes(tensor) + ": " + text::in_quotes(name) +
                   " is not the name of a safetensors file in the same directory"};
    out.emplace(tensor, name);
  }
  return out;
}

/// What PyTorch pickles: such files run code when they are read.
bool is_pickle(const fs::path& p) {
  const auto end = p.extension();
  return end == ".bin" || end == ".pt" || end == ".pth";
}

/// NAME.safetensors, or the only file of that kind.
result<fs::path> single_file(const fs::path& directory, const std::string& name) {
  std::error_code failed;
  const auto usual = name + ".safetensors";
  if (fs::exists(directory / usual, failed)) return directory / usual;
  std::vector<fs::path> found, pickles;
  for (const auto& e : fs::directory_iterator(directory, failed)) {
    if (e.path().extension() == ".safetensors") found.push_back(e.path());
    if (is_pickle(e.path())) pickles.push_back(e.path().filename());
  }
  if (failed) return error{directory.string() + ": cannot list: " + failed.message()};
  if (found.size() == 1) return found.front();
  std::sort(pickles.begin(), pickles.end());
  return error{directory.string() + ": neither " + usual + ".index.json nor " + usual +
               (!found.empty()     ? ", but several other safetensors files"
                : !pickles.empty() ? ", but " + text::printable(pickles.front().string()) +
                                         ": only safetensors are read, which transformers writes"
                                   : "")};
}

}  // namespace

std::string describe(const checkpoint::place& p) {
  return p.file->path().string() + ": tensor " + text::in_quotes(p.tensor->name);
}

const checkpoint::place* checkpoint::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

result<void> checkpoint::add_tensors(const weight_map* listed) {
  for (const auto& f : files_)
    for (const auto& t : f.tensors()) {
      if (listed && !listed->contains(t.name)) {
        unlisted_.push_back(t.name);
        continue;
      }
      if (!by_name_.emplace(t.name, tensors_.size()).second)
        return error{describe({&t, &f}) + ": is also in " + find(t.name)->file->path().string()};
      tensors_.push_back({&t, &f});
    }
  if (!listed) return {};
  for (const auto& [name, file] : *listed) {
    const auto* p = find(name);
    if (!p || p->file->path().filename() != file)
      return error{(directory_ / file).string() + ": tensor " + text::in_quotes(name) + " is missing (" +
                   index_name_ + " lists it there)"};
  }
  return {};
}

result<checkpoint> checkpoint::open(const fs::path& directory, const std::string& name) {
  std::error_code failed;
  if (!fs::is_directory(directory, failed)) return error{directory.string() + ": not a directory"};
  checkpoint c;
  c.directory_ = directory;
  c.index_name_ = name + ".safetensors.index.json";
  weight_map listed;
  std::set<fs::path> paths;
  const bool indexed = fs::exists(directory / c.index_name_, failed);
  if (indexed) {
    auto read = read_index(directory / c.index_name_);
    if (!read) return read.error();
    listed = std::move(*read);
    for (const auto& [tensor, file] : listed) paths.insert(directory / file);
  } else {
    const auto one = single_file(directory, name);
    if (!one) return one.error();
    paths.insert(*one);
  }
  c.files_.reserve(paths.size());  // tensors are pointed to
  for (const auto& p : paths) {
    auto f = safetensors_file::open(p);
    if (!f) return f.error();
    c.files_.push_back(std::move(*f));
  }
  if (auto ok = c.add_tensors(indexed ? &listed : nullptr); !ok) return ok.error();
  return c;
}

}  // namespace quantal::hf
