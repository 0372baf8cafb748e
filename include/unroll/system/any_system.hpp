#pragma once

#include <memory>
#include <utility>

#include "unroll/system/window.hpp"

namespace unroll {

/// A system of a kind chosen at run time: one type, one instantiation of every estimator, any cell inside.
/// A copy clones the cell. The cost is one virtual call per step or per window.
///
/// It offers every optional member but output(), with_lanes() and lanes_from(), so that nobody reads outputs
/// of it or deals out its lanes; `supports(hook)` says which of the hooks the cell inside has. Windows are
/// walked step by step where the cell has no window passes; any other missing member throws unroll::error.
template <class T, class Input>
class any_system final {
 public:
  using scalar = T;
  using input = Input;

  /// From any system with the same scalar and input.
  // Whether F is copyable is asked inside: asked here, it would send a class that is made from an any_system
  // (an adaptor, an estimator) round in a circle.
  template <class F>
  requires(!std::same_as<F, any_system> &&
           requires(const F& f) {
             requires std::same_as<typename F::scalar, T> && std::same_as<typename F::input, Input>;
             { f.size() } -> std::same_as<dims>;
           }) any_system(F system)
      : cell_(std::make_unique<model<F>>(std::move(system))), size_(cell_->size()) {
    static_assert(recurrent<F>, "any_system holds systems: copyable, with size() and step()");
  }
  any_system(const any_system& other) : cell_(other.cell_->clone()), size_(other.size_) {}
  any_system(any_system&&) noexcept = default;
  any_system& operator=(any_system other) noexcept {
    std::swap(cell_, other.cell_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~any_system() = default;

  dims size() const { return size_; }
  bool supports(hook h) const { return cell_->supports(h); }
  void start(state<T> s) const { cell_->start(s); }
  bool finite(const Input& x) const { return cell_->finite(x); }
  index_t scored(const Input& x) const { return cell_->scored(x); }
  bool begins(const Input& x, index_t lane) const { return cell_->begins(x, lane); }

  void step(const Input& x, const edge<T>& e) const { cell_->step(x, e); }
  void vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
           dparams<T> dtheta) const {
    cell_->vjp(x, e, dnext, dloss, ds, dtheta);
  }
  void jvp(const Input& x, const const_edge<T>& e, params_tangent<const T> dtheta, state_tangent<const T> ds,
           state_tangent<T> dnext, T* dloss) const {
    cell_->jvp(x, e, dtheta, ds, dnext, dloss);
  }
  index_t window_workspace(index_t steps) const { return cell_->window_workspace(steps); }
  void forward(std::span<const Input> xs, const window<T>& w) const { cell_->forward(xs, w); }
  void backward(std::span<const Input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                dparams<T> dtheta) const {
    cell_->backward(xs, w, in, ds, dtheta);
  }
  void jacobian(const Input& x, const const_edge<T>& e, view<T> j) const { cell_->jacobian(x, e, j); }
  void immediate(const Input& x, const const_edge<T>& e, view<T> m, index_t p0, index_t p1) const {
    cell_->immediate(x, e, m, p0, p1);
  }
  void row_norms(const Input& x, const const_edge<T>& e, view<T> out) const { cell_->row_norms(x, e, out); }
  void jacobian_mask(view<std::uint8_t> j) const { cell_->jacobian_mask(j); }
  void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const {
    cell_->immediate_mask(mask, p0, p1);
  }
  std::vector<weight_matrix> weight_matrices() const { return cell_->weight_matrices(); }
  void factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    cell_->factors(x, e, a, d);
  }
  index_t units() const { return cell_->units(); }
  bool units_apart() const { return cell_->units_apart(); }
  void diag_jacobian(const Input& x, const const_edge<T>& e, view<T> j) const {
    cell_->diag_jacobian(x, e, j);
  }
  void diag_factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    cell_->diag_factors(x, e, a, d);
  }
  std::vector<unit_layer> unit_layers() const { return cell_->unit_layers(); }
  void layer_diag_jacobian(index_t k, const Input& x, const const_edge<T>& e, view<T> j) const {
    cell_->layer_diag_jacobian(k, x, e, j);
  }
  void layer_diag_factors(index_t k, const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const {
    cell_->layer_diag_factors(k, x, e, a, d);
  }
  void lane_vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext, view<T> dtheta) const {
    cell_->lane_vjp(x, e, dnext, dtheta);
  }

 private:
  struct interface {
    virtual ~interface() = default;
    virtual std::unique_ptr<interface> clone() const = 0;
    virtual dims size() const = 0;
    virtual bool supports(hook h) const = 0;
    virtual void start(state<T> s) const = 0;
    virtual bool finite(const Input& x) const = 0;
    virtual index_t scored(const Input& x) const = 0;
    virtual bool begins(const Input& x, index_t lane) const = 0;
    virtual void step(const Input& x, const edge<T>& e) const = 0;
    virtual void vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
                     dparams<T> dtheta) const = 0;
    virtual void jvp(const Input& x, const const_edge<T>& e, params_tangent<const T> dtheta,
                     state_tangent<const T> ds, state_tangent<T> dnext, T* dloss) const = 0;
    virtual index_t window_workspace(index_t steps) const = 0;
    virtual void forward(std::span<const Input> xs, const window<T>& w) const = 0;
    virtual void backward(std::span<const Input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                          dparams<T> dtheta) const = 0;
    virtual void jacobian(const Input& x, const const_edge<T>& e, view<T> j) const = 0;
    virtual void immediate(const Input& x, const const_edge<T>& e, view<T> m, index_t p0,
                           index_t p1) const = 0;
    virtual void row_norms(const Input& x, const const_edge<T>& e, view<T> out) const = 0;
    virtual void jacobian_mask(view<std::uint8_t> j) const = 0;
    virtual void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const = 0;
    virtual std::vector<weight_matrix> weight_matrices() const = 0;
    virtual void factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const = 0;
    virtual index_t units() const = 0;
    virtual bool units_apart() const = 0;
    virtual void diag_jacobian(const Input& x, const const_edge<T>& e, view<T> j) const = 0;
    virtual void diag_factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const = 0;
    virtual std::vector<unit_layer> unit_layers() const = 0;
    virtual void layer_diag_jacobian(index_t k, const Input& x, const const_edge<T>& e, view<T> j) const = 0;
    virtual void layer_diag_factors(index_t k, const Input& x, const const_edge<T>& e, view<T> a,
                                    view<T> d) const = 0;
    virtual void lane_vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext,
                          view<T> dtheta) const = 0;
  };

  [[noreturn]] static void missing(const char* member) {
    fail("any_system", member, "the system inside has no such member");
  }

  template <class F>
  struct model final : interface {
    explicit model(F system) : f(std::move(system)) {}

    std::unique_ptr<interface> clone() const override { return std::make_unique<model>(f); }
    dims size() const override { return f.size(); }
    bool supports(hook h) const override { return unroll::supports(f, h); }
    void start(state<T> s) const override { start_state(f, s); }
    bool finite(const Input& x) const override { return finite_input(f, x); }
    index_t scored(const Input& x) const override { return index_t(scored_losses(f, x)); }
    bool begins(const Input& x, index_t lane) const override { return lane_begins(f, x, lane); }
    void step(const Input& x, const edge<T>& e) const override { f.step(x, e); }
    void vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext, T dloss, dstate<T> ds,
             dparams<T> dtheta) const override {
      if constexpr (has_vjp<F>)
        f.vjp(x, e, dnext, dloss, ds, dtheta);
      else
        missing("vjp");
    }
    void jvp(const Input& x, const const_edge<T>& e, params_tangent<const T> dtheta,
             state_tangent<const T> ds, state_tangent<T> dnext, T* dloss) const override {
      if constexpr (has_jvp<F>)
        f.jvp(x, e, dtheta, ds, dnext, dloss);
      else
        missing("jvp");
    }
    index_t window_workspace(index_t steps) const override { return unroll::window_workspace(f, steps); }
    void forward(std::span<const Input> xs, const window<T>& w) const override { window_forward(f, xs, w); }
    void backward(std::span<const Input> xs, const window<T>& w, const injection<T>& in, dstate<T> ds,
                  dparams<T> dtheta) const override {
      if constexpr (has_vjp<F>)
        window_backward(f, xs, w, in, ds, dtheta);
      else
        missing("vjp");
    }
    void jacobian(const Input& x, const const_edge<T>& e, view<T> j) const override {
      if constexpr (has_jacobian<F>)
        f.jacobian(x, e, j);
      else
        missing("jacobian");
    }
    void immediate(const Input& x, const const_edge<T>& e, view<T> m, index_t p0, index_t p1) const override {
      if constexpr (has_jacobian<F>)
        f.immediate(x, e, m, p0, p1);
      else
        missing("immediate");
    }
    void row_norms(const Input& x, const const_edge<T>& e, view<T> out) const override {
      if constexpr (has_row_norms<F>)
        f.row_norms(x, e, out);
      else
        missing("row_norms");
    }
    void jacobian_mask(view<std::uint8_t> j) const override {
      if constexpr (has_masks<F>)
        f.jacobian_mask(j);
      else
        missing("jacobian_mask");
    }
    void immediate_mask(view<std::uint8_t> mask, index_t p0, index_t p1) const override {
      if constexpr (has_masks<F>)
        f.immediate_mask(mask, p0, p1);
      else
        missing("immediate_mask");
    }
    std::vector<weight_matrix> weight_matrices() const override {
      if constexpr (has_factors<F> || has_diag_jacobian<F> || has_unit_layers<F>)
        return f.weight_matrices();
      else
        missing("weight_matrices");
    }
    void factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const override {
      if constexpr (has_factors<F>)
        f.factors(x, e, a, d);
      else
        missing("factors");
    }
    index_t units() const override {
      if constexpr (has_diag_jacobian<F>)
        return f.units();
      else
        missing("units");
    }
    bool units_apart() const override {
      if constexpr (has_diag_jacobian<F>)
        return f.units_apart();
      else
        missing("units_apart");
    }
    void diag_jacobian(const Input& x, const const_edge<T>& e, view<T> j) const override {
      if constexpr (has_diag_jacobian<F>)
        f.diag_jacobian(x, e, j);
      else
        missing("diag_jacobian");
    }
    void diag_factors(const Input& x, const const_edge<T>& e, view<T> a, view<T> d) const override {
      if constexpr (has_diag_jacobian<F>)
        f.diag_factors(x, e, a, d);
      else
        missing("diag_factors");
    }
    std::vector<unit_layer> unit_layers() const override {
      if constexpr (has_unit_layers<F>)
        return f.unit_layers();
      else
        missing("unit_layers");
    }
    void layer_diag_jacobian(index_t k, const Input& x, const const_edge<T>& e, view<T> j) const override {
      if constexpr (has_unit_layers<F>)
        f.layer_diag_jacobian(k, x, e, j);
      else
        missing("layer_diag_jacobian");
    }
    void layer_diag_factors(index_t k, const Input& x, const const_edge<T>& e, view<T> a,
                            view<T> d) const override {
      if constexpr (has_unit_layers<F>)
        f.layer_diag_factors(k, x, e, a, d);
      else
        missing("layer_diag_factors");
    }
    void lane_vjp(const Input& x, const const_edge<T>& e, dstate<const T> dnext,
                  view<T> dtheta) const override {
      if constexpr (has_lane_vjp<F>)
        f.lane_vjp(x, e, dnext, dtheta);
      else
        missing("lane_vjp");
    }

    F f;
  };

  std::unique_ptr<interface> cell_;
  dims size_;
};

}  // namespace unroll
