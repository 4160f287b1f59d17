#include "text/template_guard.h"

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "text/template_charges.h"

namespace winnow {
namespace {

using jinja::cast_stmt;
using jinja::cast_val;
using jinja::context;
using jinja::is_val;
using jinja::statement;
using jinja::statement_ptr;
using jinja::statements;
using jinja::value;

/// An expression whose value is already known.
struct Known : jinja::expression {
    explicit Known(value v) : known(std::move(v)) {}
    value execute_impl(context& /*ctx*/) const override { return known; }
    value known;
};

statement_ptr known(const value& v, size_t position) {
    auto node = std::make_unique<Known>(v);
    node->pos = position;
    return node;
}

/// A statement of a body: counts steps, output and stack.
struct GuardedStatement : statement {
    explicit GuardedStatement(statement_ptr node) : inner(std::move(node)) { pos = inner->pos; }
    value execute_impl(context& ctx) const override {
        charge_entry();
        value result = inner->execute(ctx);
        charge_container(result);
        charge_result(result);
        return result;
    }
    statement_ptr inner;
};

/// What a loop runs over: every turn is paid before the loop begins.
struct GuardedIterable : jinja::expression {
    explicit GuardedIterable(statement_ptr node) : inner(std::move(node)) { pos = inner->pos; }
    value execute_impl(context& ctx) const override {
        value result = inner->execute(ctx);
        if (RenderGuard::current() != nullptr && is_container(result)) {
            const size_t turns = is_val<jinja::value_array>(result)
                                     ? result->as_array().size()
                                     : result->as_ordered_object().size();
            RenderGuard::current()->charge_steps(static_cast<int64_t>(turns));
        }
        return result;
    }
    statement_ptr inner;
};

struct GuardedBinary : jinja::binary_expression {
    using binary_expression::binary_expression;

    value execute_impl(context& ctx) const override {
        charge_entry();
        if (op.value == "and" || op.value == "or") return binary_expression::execute_impl(ctx);
        const value a = left->execute(ctx);
        const value b = right->execute(ctx);
        if (op.value == "*") charge_repeat(a, b);
        if (op.value == "in" || op.value == "not in") charge_search(a, b);
        charge_container(a);
        charge_container(b);
        const binary_expression plain(op, known(a, left->pos), known(b, right->pos));
        value result = plain.execute_impl(ctx);
        charge_result(result);
        return result;
    }
};

std::vector<value> execute_all(const statements& nodes, context& ctx) {
    std::vector<value> values;
    for (const auto& node : nodes) values.push_back(node->execute(ctx));
    return values;
}

struct GuardedCall : jinja::call_expression {
    using call_expression::call_expression;

    value execute_impl(context& ctx) const override {
        const std::vector<value> values = execute_all(args, ctx);
        const value function = callee->execute(ctx);
        const auto* func = cast_val<jinja::value_func>(function);
        if (func != nullptr) charge_function(func->name, func->arg0, values);
        statements known_args;
        for (const value& v : values) known_args.push_back(known(v, pos));
        const call_expression plain(known(function, callee->pos), std::move(known_args));
        value result = plain.execute_impl(ctx);
        charge_result(result);
        return result;
    }
};

value run_filter(const value& self, const statement_ptr& filter, size_t position, context& ctx) {
    const auto* call = cast_stmt<jinja::call_expression>(filter);
    const auto* id = cast_stmt<jinja::identifier>(call != nullptr ? call->callee : filter);
    if (id == nullptr) throw std::runtime_error("a filter must be a name or a call of a name");
    auto name = std::make_unique<jinja::identifier>(id->val);
    name->pos = position;
    statement_ptr known_filter;
    if (call == nullptr) {
        charge_function(id->val, self, {});
        known_filter = std::move(name);
    } else {
        const std::vector<value> values = execute_all(call->args, ctx);
        charge_function(id->val, self, values);
        statements known_args;
        for (const value& v : values) known_args.push_back(known(v, position));
        known_filter =
            std::make_unique<jinja::call_expression>(std::move(name), std::move(known_args));
        known_filter->pos = position;
    }
    const jinja::filter_expression plain(known(self, position), std::move(known_filter));
    value result = plain.execute_impl(ctx);
    charge_result(result);
    return result;
}

struct GuardedFilter : jinja::filter_expression {
    using filter_expression::filter_expression;
    value execute_impl(context& ctx) const override {
        return run_filter(operand->execute(ctx), filter, pos, ctx);
    }
};

struct GuardedFilterBlock : jinja::filter_statement {
    using filter_statement::filter_statement;
    value execute_impl(context& ctx) const override {
        auto parts = jinja::mk_val<jinja::value_array>();
        for (const auto& node : body) parts->push_back(node->execute(ctx));
        return run_filter(jinja::runtime::gather_string_parts(parts), filter, pos, ctx);
    }
};

/// A list, tuple or object literal: nesting grows only where it holds a container.
template <class Literal>
struct GuardedLiteral : Literal {
    using Literal::Literal;
    value execute_impl(context& ctx) const override {
        charge_entry();
        value result = Literal::execute_impl(ctx);
        bool nested = false;
        if (is_val<jinja::value_object>(result)) {
            for (const auto& item : result->as_ordered_object())
                nested |= is_container(item.second);
        } else {
            for (const value& item : result->as_array()) nested |= is_container(item);
        }
        if (nested && RenderGuard::current() != nullptr) RenderGuard::current()->charge_nesting();
        return result;
    }
};

void guard_node(statement_ptr& node);

void guard_nodes(statements& nodes) {
    for (auto& node : nodes) guard_node(node);
}

void guard_body(statements& body) {
    for (auto& node : body) {
        guard_node(node);
        node = std::make_unique<GuardedStatement>(std::move(node));
    }
}

/// Replaces node by a guarded one that takes over its parts.
template <class Guarded, class... Parts>
void replace_node(statement_ptr& node, Parts&&... parts) {
    auto guarded = std::make_unique<Guarded>(std::forward<Parts>(parts)...);
    guarded->pos = node->pos;
    node = std::move(guarded);
}

void guard_filter_args(statement_ptr& filter) {
    if (auto* call = cast_stmt<jinja::call_expression>(filter)) guard_nodes(call->args);
}

/// Returns true if node was a statement with a body.
bool guard_block(statement_ptr& node) {
    if (auto* branch = cast_stmt<jinja::if_statement>(node)) {
        guard_node(branch->test);
        guard_body(branch->body);
        guard_body(branch->alternate);
    } else if (auto* loop = cast_stmt<jinja::for_statement>(node)) {
        guard_node(loop->iterable);
        auto* select = cast_stmt<jinja::select_expression>(loop->iterable);
        statement_ptr& items = select != nullptr ? select->lhs : loop->iterable;
        items = std::make_unique<GuardedIterable>(std::move(items));
        guard_body(loop->body);
        guard_body(loop->default_block);
    } else if (auto* set = cast_stmt<jinja::set_statement>(node)) {
        guard_node(set->assignee);
        guard_node(set->val);
        guard_body(set->body);
    } else if (auto* macro = cast_stmt<jinja::macro_statement>(node)) {
        guard_nodes(macro->args);
        guard_body(macro->body);
    } else if (auto* block = cast_stmt<jinja::call_statement>(node)) {
        guard_filter_args(block->call);
        guard_nodes(block->caller_args);
        guard_body(block->body);
    } else if (auto* filtered = cast_stmt<jinja::filter_statement>(node)) {
        guard_filter_args(filtered->filter);
        guard_body(filtered->body);
        replace_node<GuardedFilterBlock>(node, std::move(filtered->filter),
                                         std::move(filtered->body));
    } else {
        return false;
    }
    return true;
}

/// Expressions whose parts are guarded but which need no check of their own.
void guard_parts(statement_ptr& node) {
    if (auto* member = cast_stmt<jinja::member_expression>(node)) {
        guard_node(member->object);
        if (member->computed) guard_node(member->property);
    } else if (auto* slice = cast_stmt<jinja::slice_expression>(node)) {
        guard_node(slice->start_expr);
        guard_node(slice->stop_expr);
        guard_node(slice->step_expr);
    } else if (auto* unary = cast_stmt<jinja::unary_expression>(node)) {
        guard_node(unary->argument);
    } else if (auto* choice = cast_stmt<jinja::ternary_expression>(node)) {
        guard_node(choice->condition);
        guard_node(choice->true_expr);
        guard_node(choice->false_expr);
    } else if (auto* select = cast_stmt<jinja::select_expression>(node)) {
        guard_node(select->lhs);
        guard_node(select->test);
    } else if (auto* test = cast_stmt<jinja::test_expression>(node)) {
        guard_node(test->operand);
        guard_filter_args(test->test);
    } else if (auto* named = cast_stmt<jinja::keyword_argument_expression>(node)) {
        guard_node(named->val);
    }
}

void guard_node(statement_ptr& node) {
    if (!node || guard_block(node)) return;
    if (auto* binary = cast_stmt<jinja::binary_expression>(node)) {
        guard_node(binary->left);
        guard_node(binary->right);
        replace_node<GuardedBinary>(node, binary->op, std::move(binary->left),
                                    std::move(binary->right));
    } else if (auto* call = cast_stmt<jinja::call_expression>(node)) {
        guard_node(call->callee);
        guard_nodes(call->args);
        replace_node<GuardedCall>(node, std::move(call->callee), std::move(call->args));
    } else if (auto* filter = cast_stmt<jinja::filter_expression>(node)) {
        guard_node(filter->operand);
        guard_filter_args(filter->filter);
        replace_node<GuardedFilter>(node, std::move(filter->operand), std::move(filter->filter));
    } else if (auto* list = cast_stmt<jinja::array_literal>(node)) {
        guard_nodes(list->val);
        replace_node<GuardedLiteral<jinja::array_literal>>(node, std::move(list->val));
    } else if (auto* tuple = cast_stmt<jinja::tuple_literal>(node)) {
        guard_nodes(tuple->val);
        replace_node<GuardedLiteral<jinja::tuple_literal>>(node, std::move(tuple->val));
    } else if (auto* object = cast_stmt<jinja::object_literal>(node)) {
        for (auto& [key, item] : object->val) {
            guard_node(key);
            guard_node(item);
        }
        replace_node<GuardedLiteral<jinja::object_literal>>(node, std::move(object->val));
    } else {
        guard_parts(node);
    }
}

}  // namespace

void guard_template(jinja::program& program) {
    guard_body(program.body);
}

}  // namespace winnow
