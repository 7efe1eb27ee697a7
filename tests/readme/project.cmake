cmake_minimum_required(VERSION 3.22)
project(app LANGUAGES CXX)
add_executable(app main.cpp)
include(snippet.cmake)
