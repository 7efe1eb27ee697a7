#include "importance.hpp"

#include <algorithm>

#include "collector.hpp"
#include "corpus.hpp"
#include "memory.hpp"
#include "quantal/imatrix/io.hpp"
#include "text.hpp"
#include "text_pass.hpp"

namespace quantal::hf {

result<void> collect_importance(const importance_job& job) {
  const auto ram = available_memory();
  const auto m = mla::load_model(job.model, {.ram = ram});
  if (!m) return m.error();
  const auto t = mla::tokenizer::from_gguf(m->file->meta());
  if (!t) return error{job.model.string() + ": " + t.error().message};
  const std::int64_t context = std::min(job.context, m->hyper.context);
  const auto text = mla::load_corpus(job.text, *t, context, 0, job.chunks);
  if (!text) return text.error();
  mla::print_warnings(job.text.string(), text->notes);
  thread_pool pool(text::thread_count(job.threads));
  mla::collector c;
  c.statistics().chunk_size = context;
  c.statistics().datasets.push_back(job.text.filename().string());
  mla::pass_options pass;
  pass.logits = false, pass.ram = ram, pass.scratch = job.out.parent_path();
  progress bar("collecting", mla::pass_steps(*m, text->chunks));
  const auto nothing = [](std::int64_t, std::span<const float>) -> result<std::string> {
    return std::string();
  };
  if (auto r =
          mla::run_text(*m, mla::chunks_of(*text), runtime::dispatcher::best(), pool, pass, bar, &c, nothing);
      !r)
    return error{job.text.string() + ": " + r.error().message};
  return imatrix::save_gguf(c.statistics(), job.out);
}

}  // namespace quantal::hf
