#include "importance.hpp"

#include <algorithm>

#include "collector.hpp"
#include "corpus.hpp"
#include "progress.hpp"
#include "quantal/imatrix/io.hpp"
#include "session.hpp"
#include "text.hpp"

namespace quantal::hf {

result<void> collect_importance(const importance_job& job) {
  const auto m = mla::load_model(job.model);
  if (!m) return m.error();
  const auto t = mla::tokenizer::from_gguf(m->file->meta());
  if (!t) return error{job.model.string() + ": " + t.error().message};
  const std::int64_t context = std::min(job.context, m->hyper.context);
  const auto text = mla::load_corpus(job.text, *t, context, 0, job.chunks);
  if (!text) return text.error();
  mla::print_warnings(job.text.string(), text->notes);
  thread_pool pool(text::thread_count(job.threads));
  mla::session s(*m, runtime::dispatcher::best(), pool, context, {1, false, activation::exact});
  mla::collector c;
  c.statistics().chunk_size = context;
  c.statistics().datasets.push_back(job.text.filename().string());
  progress bar("collecting", text->chunks);
  for (std::int64_t i = 0; i < text->chunks; ++i) {
    s.clear();
    if (auto r = s.evaluate(text->chunk(i), {}, 0, &c); !r)
      return error{job.text.string() + ": chunk " + std::to_string(i) + ": " + r.error().message};
    bar.update(i + 1);
  }
  return imatrix::save_gguf(c.statistics(), job.out);
}

}  // namespace quantal::hf
